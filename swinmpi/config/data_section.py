"""The section `data`: which images become pairs, and how they are read."""
from typing import Any, Literal

from pydantic import Field, field_validator

from swinmpi.config.base import MOST_COUNT, MOST_SEED, Section

Spread = float | list[float] | None
MEASURE = "measure"
# Settings of DataConfig that are a number or [low, high], and what lies in their bounds.
SPREADS = {"psf_px": (0.0, 1000.0), "photons": (0.01, 1e12), "read_noise": (0.0, 10.0)}
# Of what swinmpi-train draws anew for every crop it trains on.
DRAWN_SPREADS = {"noise": (0.0, 1.0), "blur_px": (0.0, 100.0)}


class DataConfig(Section):
    """What `swinmpi-prepare` cuts from its images and how it degrades it; `noise` and `blur_px` are
    of training and sampling."""

    size_px: int = Field(192, ge=8, le=8192, description="side of the HR crops, or of the whole "
                         "padded images")
    mode: Literal["crop", "whole"] = Field(
        "crop", description="crop: square crops at random places; whole: every image once, cropped "
        "or mirrored to a square")
    resize: Literal["squash", "square"] | None = Field(
        None, description="whole images (mode whole) shrunk to size_px along both axes: squash: "
        "each axis by itself, as the author's code does; square: the largest square in the middle")
    crops_per_image: int = Field(16, gt=0, le=MOST_COUNT, description="crops from each training "
                                 "image, at most")
    validate_crops: int | None = Field(None, gt=0, le=MOST_COUNT, description="crops from each "
                                       "validation image; as from training images when absent")
    coverage: float | None = Field(None, gt=0, le=1e6, description="at most this many crops over "
                                   "each pixel of a (reduced) image; gives small images fewer")
    reduce_spread: float = Field(1.0, ge=1, le=1000, description="shrink an image by a factor "
                                 "drawn from reduce .. reduce * this before cutting")
    scale: float = Field(2.0, gt=1, le=64, description="HR size / LR size")
    kernel: Literal["bicubic", "bilinear"] = Field(
        "bicubic", description="kernel of MATLAB's imresize, which makes LR from HR")
    psf_px: Spread = Field(None, description="sigma of a Gaussian point spread function, in HR px, "
                           "that HR is convolved with before it is shrunk; a number, or [low, "
                           "high] to draw one for every crop; nothing or 0: none")
    photons: Spread = Field(None, description="photons counted in an LR pixel at the high end of "
                            "the value range (none at the low end), for Poisson (shot) noise; a "
                            "number, or [low, high] to draw one for every crop, evenly in its "
                            "logarithm; nothing: no such noise")
    read_noise: Spread = Field(None, description="sigma of Gaussian noise on LR, as a share of the "
                               "value range; a number, or [low, high] to draw one for every crop; "
                               "nothing or 0: none")
    noise: Spread | Literal["measure"] = Field(
        None, description="models with model.noise_aware only: deviation of Gaussian noise on LR, "
        "as a share of the value range. swinmpi-train: a number, or [low, high] to draw a level "
        "for every crop each time it is trained on, low ones more often. swinmpi-sample: the level "
        "of the images, or measure, which it is when absent: measured in every image")
    blur_px: Spread = Field(None, description="as psf_px, but drawn by swinmpi-train each time a "
                            "crop is trained on, whose LR is then made anew from HR; with "
                            "model.noise_aware")
    flat_reject: float = Field(0.85, ge=0, le=1, description="probability with which a flat crop "
                               "is drawn again")
    flat_threshold: float = Field(0.02, ge=0, description="a crop is flat below this standard "
                                  "deviation of its brightness (range 0..1)")
    validate_share: float = Field(0.1, ge=0, lt=1, description="part of the images that is kept "
                                  "for validation, where the list names no split")
    validate_count: int | None = Field(None, ge=0, le=MOST_COUNT, description="so many images in "
                                       "place of validate_share")
    test_share: float = Field(0.0, ge=0, lt=1, description="part of the images that is kept to "
                              "test on, where the list names no split")
    test_count: int | None = Field(None, ge=0, le=MOST_COUNT, description="so many images in place "
                                   "of test_share")
    channels: Literal[1, 3] = Field(3, description="1: grey (colours are weighted to luma), "
                                    "3: RGB (grey is copied)")
    seed: int = Field(0, ge=0, lt=MOST_SEED, description="of places, reductions and the split")
    no_data: float | list[float] | None = Field(
        None, description="stored values that mean no data, beside NaN and what the file itself "
        "names in _FillValue or missing_value; of every command that reads images")

    @property
    def takes_whole(self) -> bool:
        """Whether an image gives one HR image, all of it; a resize asks for that as well."""
        return self.mode == "whole" or self.resize is not None

    @property
    def no_data_values(self) -> tuple[float, ...]:
        """`no_data` as a tuple, maybe empty."""
        told = self.no_data
        return () if told is None else tuple(told) if isinstance(told, list) else (told,)
    axes: str | None = Field(None, description="what the axes of an HDF5 stack are, a letter for "
                             "each: y, x, c for colours, any other for images that follow each "
                             "other, such as tzyx; as the file says, else by shape, when absent")
    calibration: Literal["skip", "bicubic", "network"] = Field(
        "skip", description="darks and flats of a tomogram with an image_key: skip leaves them "
        "out, bicubic keeps them, enlarged without the network, network takes them as "
        "projections; swinmpi-prepare always leaves them out")

    @property
    def degradation(self) -> dict[str, tuple[float, float]]:
        """(low, high) of what is drawn for every crop beside shrinking it, by its setting."""
        set_ones = {name: getattr(self, name) for name in SPREADS}
        both = {name: as_range(value) for name, value in set_ones.items() if value is not None}
        return {name: (low, high) for name, (low, high) in both.items() if high > 0}

    @property
    def drawn(self) -> dict[str, tuple[float, float]]:
        """(low, high) of what training draws for every crop, by its setting."""
        return {name: as_range(getattr(self, name)) for name in DRAWN_SPREADS
                if getattr(self, name) not in (None, MEASURE)}

    @field_validator(*SPREADS, *DRAWN_SPREADS, mode="before")
    @classmethod
    def check_spread(cls, value: Any, info) -> Any:
        if info.field_name == "noise" and value == MEASURE:
            return value
        low, high = (SPREADS | DRAWN_SPREADS)[info.field_name]
        told = value if isinstance(value, list) else [value, value]
        numbers = all(type(one) in (int, float) and low <= one <= high for one in told)
        if value is not None and not (numbers and len(told) == 2 and told[0] <= told[1]):
            raise ValueError(f"a number from {low:g} to {high:g}, or two as [low, high]"
                             + (f", or {MEASURE}" if info.field_name == "noise" else ""))
        return value

    @field_validator("axes")
    @classmethod
    def check_axes(cls, axes: str | None) -> str | None:
        if axes is not None and not (axes.isalpha() and axes.islower() and axes.isascii()
                                     and len(set(axes)) == len(axes) and {"y", "x"} <= set(axes)):
            raise ValueError("a lower-case letter for each axis, y and x among them and "
                             "none twice, such as tzyx")
        return axes


def as_range(spread: float | list[float]) -> tuple[float, float]:
    """(low, high) of a number or of [low, high]."""
    low, high = spread if isinstance(spread, list) else (spread, spread)
    return float(low), float(high)
