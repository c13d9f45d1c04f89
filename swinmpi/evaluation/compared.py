"""An SR stack with the truth or without: checked to be of the same images, opened, read image by
image."""
import posixpath
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from swinmpi.config.families import DEFAULT_FAMILY, FAMILIES
from swinmpi.config.strict_yaml import YAMLError, parse_yaml
from swinmpi.errors import ConfigError, StackError
from swinmpi.evaluation.ensemble import Ensemble, OpenEnsemble, ensemble_beside
from swinmpi.evaluation.splits import Judged, judged, with_trained
from swinmpi.evaluation.viewed import Viewed, read_hwc, viewed
from swinmpi.images.imresize import imresize
from swinmpi.images.metrics import valid_pixels
from swinmpi.storage.layout import in_letters
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.outputs.result import find_failed, find_sibling, read_process
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange, exact_float, mask_invalid


@dataclass(frozen=True)
class Comparison:
    """Stacks of the same images, and what their figures are measured with.

    hr: None without the truth. lr: None where HR, without it SR, is made smaller instead.
    regression: the SR file's, if it has one; ensemble: its samples, if it has some. extent: of the
    SR stack, in words. range_from: where the value range comes from. failed: image indices that
    the run which made SR gave up. no_data: stored values that mean no data, beside those that the
    files tell. judged: which images of HR are compared. seamless: why there is no window_px, in
    words. process: what the SR file says of its making.
    """

    sr: Viewed
    hr: Viewed | None
    lr: Viewed | None
    regression: Viewed | None
    extent: str
    num_images: int
    scale: float
    window_px: int | None
    value_range: ValueRange
    range_from: str
    failed: tuple[int, ...]
    no_data: tuple[float, ...] = ()
    judged: Judged = Judged()
    seamless: str = "the SR file does not tell its window size"
    ensemble: Ensemble | None = None
    process: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def image_indices(self) -> list[int]:
        """The images to evaluate: all but those the run gave up."""
        return sorted(set(range(self.num_images)) - set(self.failed))


@dataclass(frozen=True)
class ComparedStacks:
    """The open stacks of a comparison."""

    comparison: Comparison
    sr: Stack
    hr: Stack | None
    lr: Stack | None
    regression: Stack | None
    ensemble: OpenEnsemble | None = None

    @property
    def limits(self) -> ValueRange:
        """Darkest and brightest of a picture: HR's range, without it SR's."""
        return (self.hr or self.sr).range()

    def read(self, image_index: int) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
        """(LR, versions of HR size by name, HR last where there is one, number of NaN pixels).

        Images are (H, W, C) floats, raw values. A pixel that is not finite, or no data, in SR or HR
        is NaN in every version, so that all are measured on the same pixels.
        """
        sr = read_hwc(self.sr, image_index)
        truth = sr if self.hr is None else read_hwc(self.hr, image_index)
        lr = read_hwc(self.lr, image_index) if self.lr else self.shrink(truth)
        versions = {"bicubic": self.enlarge(lr, truth.shape[:2])}
        if self.regression is not None:
            versions["regression"] = read_hwc(self.regression, image_index)
        versions |= {"sr": sr} | ({} if self.hr is None else {"hr": truth})
        valid = valid_pixels(sr, truth)
        for version in versions.values():
            version[~valid] = np.nan
        return lr, versions, int((~valid).sum())

    def shrink(self, hr: np.ndarray) -> np.ndarray:
        """The LR image of an HR image, as MATLAB makes it for this dtype."""
        stored = fill(hr).astype((self.hr or self.sr).dtype.newbyteorder("="))
        return imresize(stored, scale=1 / self.comparison.scale).astype(hr.dtype)

    def enlarge(self, lr: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Bicubic, in values that the stack's dtype can hold."""
        enlarged = imresize(fill(lr), size=size)
        if self.sr.dtype.kind == "f":
            return enlarged
        limits = np.iinfo(self.sr.dtype)
        return np.rint(enlarged).clip(limits.min, limits.max)


def check_compared(sr_address: str, hr_address: str | None, lr_address: str | None,
                   no_data: tuple[float, ...] = (), view: View = AS_STORED,
                   split: str | None = None) -> Comparison:
    """The comparison of the stacks at these addresses, their images unread. hr_address: None
    without the truth. view: see `viewed`. split: of HR, a file of pairs, whose images are compared;
    None for all.

    StackError when they are not of the same images; ConfigError when neither `lr_address` nor the
    SR file gives the scale.
    """
    chosen = judged(hr_address, split, view.frames)
    seen, others = viewed(sr_address, [one for one in (hr_address, lr_address) if one],
                          replace(view, frames=chosen.frames or view.frames), split is not None)
    with ExitStack() as stacks:
        sr, *more = (stacks.enter_context(one.open(no_data)) for one in (seen, *others))
        hr = more.pop(0) if hr_address else None
        if hr is not None:
            check_same_images(sr, hr)
        lr = more[0] if more else None
        process = read_process(sr)
        model = recorded_model(sr, process)
        if lr is not None:
            check_lr(lr, hr or sr)
        elif "scale" not in model:
            raise ConfigError(f"{sr.address}: does not tell its scale; "
                              "name the LR stack it was made from with --lr")
        failed = find_failed(sr)
        if len(failed) == sr.num_images:
            raise StackError(f"{sr.address}: the run that made it gave up all {sr.num_images} "
                             "images; run it again")
        regression = regression_beside(sr, seen.view)
        if regression is not None:
            stacks.enter_context(regression.open())
        ensemble = ensemble_beside(sr, seen.view, process)
        scale = model["scale"] if lr is None else sr.height / lr.height
        found = iter([Viewed(stack.address, one.view) for stack, one in
                      zip((sr, *filter(None, (hr, lr))), (seen, *others), strict=True)])
        views = [one and next(found) for one in (sr, hr, lr)]
        return Comparison(*views, regression, extent(sr), sr.num_images, scale,
                          model.get("window_px"), *find_value_range(sr, hr, process),
                          tuple(failed), no_data, with_trained(chosen, hr) if hr else chosen,
                          **({"seamless": "no windows were put together"}
                             if "window_px" in model else {}), ensemble=ensemble, process=process)


def open_compared(comparison: Comparison, stacks: ExitStack) -> ComparedStacks:
    """Open all stacks, to be closed by `stacks`."""
    opened = [one and stacks.enter_context(one.open(comparison.no_data)) for one in
              (comparison.sr, comparison.hr, comparison.lr, comparison.regression)]
    return ComparedStacks(comparison, *opened,
                          comparison.ensemble and comparison.ensemble.open(stacks))


def regression_beside(sr: Stack, view: View) -> Viewed | None:
    """The encoder's regression in an SR file, stored like SR."""
    address = find_sibling(sr, "regression")
    axes = in_letters(sr.arrangement.layout)
    return None if address is None else Viewed(address, replace(view, axes=axes))


def check_same_images(sr: Stack, hr: Stack) -> None:
    """StackError unless both hold as many images of one size, channels and dtype, in any layout."""
    if extent(sr) != extent(hr):
        raise StackError(f"{hr.address}: expected {extent(sr)} as in {sr.address}, "
                         f"got {extent(hr)}; name the HR stack that belongs to this SR stack")
    if posixpath.basename(sr.address.dataset) != "sr_mean" or sr.dtype != exact_float(hr.dtype):
        check_dtype(sr, hr)


def check_lr(lr: Stack, hr: Stack) -> None:
    """StackError unless `lr` can be the LR stack of `hr`."""
    same = (lr.num_images, lr.channels) == (hr.num_images, hr.channels) and lr.height < hr.height
    if not same or abs(lr.height * hr.width - lr.width * hr.height) > max(hr.height, hr.width):
        raise StackError(f"{lr.address}: expected {extent(hr)} made smaller, got {extent(lr)}; "
                         f"name the LR stack that belongs to {hr.address}")
    check_dtype(lr, hr)


def check_dtype(stack: Stack, hr: Stack) -> None:
    if stack.dtype.newbyteorder("=") != hr.dtype.newbyteorder("="):
        raise StackError(f"{stack.address}: expected {hr.dtype} like {hr.address}, got "
                         f"{stack.dtype}; values of different types cannot be compared, "
                         "convert one")


def find_value_range(sr: Stack, hr: Stack | None, process: Mapping) -> tuple[ValueRange, str]:
    """(the limits of uint8 and uint16; else what the SR file records, else HR's range, without HR
    that of SR; where it comes from, in words)."""
    if sr.dtype.kind == "u" and sr.dtype.itemsize <= 2:
        limits = np.iinfo(sr.dtype)
        return ValueRange(float(limits.min), float(limits.max)), f"of {sr.dtype.name}"
    recorded = process.get("value_range")
    if recorded is None:
        return (hr or sr).range(), f"measured on {'SR' if hr is None else 'HR'}"
    is_pair = isinstance(recorded, list) and len(recorded) == 2
    if not (is_pair and all(isinstance(value, int | float) for value in recorded)):
        raise StackError(f"{sr.address}: expected a value_range of two numbers in its "
                         f"/entry/process, got {recorded!r}; make it again")
    return ValueRange(*recorded), "recorded in the SR file"


def recorded_model(sr: Stack, process: Mapping) -> dict:
    """`scale` and `window_px`, on the SR grid, of the model that made the SR stack, as far as its
    file has them; None for a window that was the whole image."""
    try:
        written = process.get("configuration")
        model = {} if written is None else parse_yaml(written)["model"]
        known = {name: model[name] for name in ("scale", "window_px") if name in model}
        if all(type(value) is int and value > 1 or (name, value) == ("window_px", None)
               for name, value in known.items()):
            if known.get("window_px"):
                section = FAMILIES[model.get("family", DEFAULT_FAMILY)]
                known["window_px"] = section.model_construct(**model).seam_px
            return known
    except (TypeError, KeyError, YAMLError):
        pass
    raise StackError(f"{sr.address}: its /entry/process holds no configuration of swinmpi; "
                     "make it again")


def extent(stack: Stack) -> str:
    return (f"{stack.num_images} images of {stack.height} x {stack.width} px "
            f"with {stack.channels} channels")


def fill(image: np.ndarray) -> np.ndarray:
    """NaN pixels of (H, W, C) take the nearest value, so that resizing does not spread them."""
    return np.moveaxis(mask_invalid(np.moveaxis(image, -1, 0))[0], 0, -1)
