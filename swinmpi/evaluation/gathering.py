"""What figures of all images of an evaluation together are made of: features of every image."""
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from swinmpi.errors import CheckpointError
from swinmpi.images.figures import Figure
from swinmpi.images.frechet import Features, default_inception, load_inception


class Gathering:
    """The features of all images, by version, for figures of them together."""

    def __init__(self, figures: Sequence[Figure]):
        self.figures, self.rows = figures, defaultdict(list)
        self.features: Features | None = None

    def find_features(self, inception: Path | None) -> list[str]:
        """No remark, or how to get what is missing; CheckpointError where it was named."""
        if not self.figures:
            return []
        if inception is not None:
            self.features = load_inception(inception)
            return []
        try:
            self.features = load_inception(default_inception())
        except CheckpointError as error:
            return [f"FID is unavailable: {error}, or name a copy with --inception FILE"]
        return []

    def add(self, versions: Mapping[str, np.ndarray]) -> None:
        """One image in -1..1 by version, `hr` among them."""
        if self.features is not None:
            for name, image in versions.items():
                self.rows[name].append(self.features(image))

    def finish(self) -> dict[str, dict[str, float]]:
        """The figures by version; empty without features."""
        truth = self.rows.pop("hr", [])
        return {version: {figure.name: figure.gathered(np.array(rows), np.array(truth))
                          for figure in self.figures} for version, rows in self.rows.items()}
