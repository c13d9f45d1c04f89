"""What a run writes finished images to, seen from who writes: a file, or a folder of pictures."""
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class ImageStore(Protocol):
    """One open output of a stack of images, on one process (rank 0).

    Images are named by their index in the stack. Each grows part by part, in any order, until
    `complete` marks it done; `finish` ends the output.
    """

    def remaining(self) -> list[int]:
        """Image indices that are not done, ascending; those of a resumed output are fewer."""

    def write_part(self, image_index: int, top: int, left: int,
                   arrays: Mapping[str, np.ndarray]) -> None:
        """Store pixels of an image, not yet safe from a kill.

        arrays: (C, h, w) at (top, left) on the SR grid, raw values in the stored dtype, for every
        name that the store was made with. ValueError, and nothing is stored, when names, shapes or
        dtypes do not fit; OutputError when it cannot be written.
        """

    def complete(self, image_index: int, figures: Mapping[str, float]) -> None:
        """Mark an image done when all its parts are stored.

        Returns when it would survive a kill or a power cut. figures: numbers about the image, by
        name. OutputError when it cannot be written.
        """

    def finish(self, provenance: Mapping[str, Any], failed: Collection[int] = ()) -> Path:
        """Write the final form and close; returns where it is.

        failed: image indices that are left out, since they could not be made. ValueError when
        others are not done; OutputError when it cannot be written.
        """

    def close(self) -> None:
        """Close the output; one that is not finished can be resumed."""
