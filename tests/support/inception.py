"""Inception's weights for FID where there is no network: random ones in the real one's file."""
import io
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from swinmpi.images.frechet import LAYER, WEIGHTS


class Untrained(FeatureExtractorInceptionV3):
    """With first weights in place of those of a file."""

    def load_state_dict(self, state: dict) -> None:
        """Nothing."""


def write_inception(torch_home: Path) -> Path:
    """A file of random weights under the name and in the place of the real one;
    returns its path."""
    folder, nothing = torch_home / "hub" / "checkpoints", io.BytesIO()
    folder.mkdir(parents=True)
    torch.save({}, nothing)
    nothing.seek(0)
    torch.manual_seed(0)
    torch.save(Untrained("random", [LAYER], nothing).state_dict(), folder / WEIGHTS)
    return folder / WEIGHTS
