"""How wrong an image is in each of its Haar bands: what a diagonal band that stays noisy looks like
in numbers and to the eye (thesis fig. 4.3)."""
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from swinmpi.images.contact_sheet import contact_sheet, to_uint8
from swinmpi.images.figures import ComparedImage, Figure
from swinmpi.images.haar import BANDS, haar


def band_of(image: np.ndarray, band: str) -> Tensor:
    """(H, W, C) -> float64 (C, H // 2, W // 2); a last odd row or column is left out."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    values = torch.from_numpy(np.asarray(image[:height, :width], np.float64)).movedim(-1, 0)
    return haar(values).chunk(len(BANDS))[BANDS.index(band)]


def band_error(one: ComparedImage, band: str) -> float:
    """Root mean square error of a band over the truth's root mean square: 0 where it is right, 1
    where nothing would be as good. NaN where the true band is empty."""
    return ratio(band_of(one.image, band) - band_of(one.hr, band), band_of(one.hr, band))


def band_power(one: ComparedImage, band: str) -> float:
    """Root mean square of a band over the truth's: above 1 there is more in it than there should
    be, which is noise. NaN as of `band_error`."""
    return ratio(band_of(one.image, band), band_of(one.hr, band))


def ratio(band: Tensor, true: Tensor) -> float:
    """Of root mean squares, over pixels that are numbers."""
    above, below = (float(values.square().nanmean().sqrt()) for values in (band, true))
    return above / below if below else float("nan")


BAND_FIGURES = (
    *(Figure(f"error_{band}", f"{band} error", ".3f", f"error of Haar band {band} over its truth",
             0.0, compared=partial(band_error, band=band)) for band in BANDS),
    Figure("power_HH", "HH power", ".3f", "what is in the diagonal Haar band over what should be",
           1.0, compared=partial(band_power, band="HH")))


def diagonal_bands(versions: Mapping[str, Sequence[np.ndarray]]) -> Image.Image:
    """The band HH of every version's images, side by side; 0 is grey, black and white are three
    times the deviation of the last version, which is the truth.

    versions: images (H, W, C) by label, as many of each. Under each band stands its power.
    """
    rows, captions = [], []
    for images in zip(*versions.values(), strict=True):
        bands = [band_of(image, "HH").mean(dim=0).numpy() for image in images]
        limit = 3 * bands[-1].std()
        rows.append([to_uint8(band, -limit, limit) for band in bands])
        captions.append([f"{ratio(band_of(image, 'HH'), band_of(images[-1], 'HH')):.2f}"
                         for image in images])
    return contact_sheet(rows, list(versions), captions, max_rows=len(rows))
