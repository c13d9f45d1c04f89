"""The stacks of an evaluation: checked to be of the same images, opened, read image by image."""
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from swinmpi.config.strict_yaml import YAMLError, parse_yaml
from swinmpi.errors import ConfigError, StackError
from swinmpi.evaluation.splits import Judged, judged, with_trained
from swinmpi.evaluation.viewed import Viewed, viewed
from swinmpi.images.imresize import imresize
from swinmpi.images.metrics import valid_pixels
from swinmpi.storage.layout import in_letters
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.outputs.result import find_failed, find_sibling, read_process
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange, mask_invalid


@dataclass(frozen=True)
class Comparison:
    """Stacks of the same images, and what their figures are measured with.

    lr: None where HR is made smaller instead. regression: the SR file's, if it has one. extent: of
    the SR stack, in words. failed: image indices that the run which made SR gave up. no_data:
    stored values that mean no data, beside those that the files tell. judged: which images of HR
    are compared. seamless: why there is no window_px, in words.
    """

    sr: Viewed
    hr: Viewed
    lr: Viewed | None
    regression: Viewed | None
    extent: str
    num_images: int
    scale: float
    window_px: int | None
    value_range: ValueRange
    failed: tuple[int, ...]
    no_data: tuple[float, ...] = ()
    judged: Judged = Judged()
    seamless: str = "the SR file does not tell its window size"

    @property
    def image_indices(self) -> list[int]:
        """The images to evaluate: all but those the run gave up."""
        return sorted(set(range(self.num_images)) - set(self.failed))


@dataclass(frozen=True)
class ComparedStacks:
    """The open stacks of a comparison."""

    comparison: Comparison
    sr: Stack
    hr: Stack
    lr: Stack | None
    regression: Stack | None

    def read(self, image_index: int) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
        """(LR, versions of HR size by name, HR last, number of NaN pixels).

        Images are (H, W, C) floats, raw values. A pixel that is not finite, or no data, in SR or HR
        is NaN in every version, so that all are measured on the same pixels.
        """
        hr, sr = read_hwc(self.hr, image_index), read_hwc(self.sr, image_index)
        lr = read_hwc(self.lr, image_index) if self.lr else self.shrink(hr)
        versions = {"bicubic": self.enlarge(lr, hr.shape[:2])}
        if self.regression is not None:
            versions["regression"] = read_hwc(self.regression, image_index)
        versions |= {"sr": sr, "hr": hr}
        valid = valid_pixels(sr, hr)
        for version in versions.values():
            version[~valid] = np.nan
        return lr, versions, int((~valid).sum())

    def shrink(self, hr: np.ndarray) -> np.ndarray:
        """The LR image of an HR image, as MATLAB makes it for this dtype."""
        stored = fill(hr).astype(self.hr.dtype.newbyteorder("="))
        return imresize(stored, scale=1 / self.comparison.scale).astype(hr.dtype)

    def enlarge(self, lr: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Bicubic, in values that the stack's dtype can hold."""
        enlarged = imresize(fill(lr), size=size)
        if self.sr.dtype.kind == "f":
            return enlarged
        limits = np.iinfo(self.sr.dtype)
        return np.rint(enlarged).clip(limits.min, limits.max)


def check_compared(sr_address: str, hr_address: str, lr_address: str | None,
                   no_data: tuple[float, ...] = (), view: View = AS_STORED,
                   split: str | None = None) -> Comparison:
    """The comparison of the stacks at these addresses, their images unread. view: see `viewed`.
    split: of HR, a file of pairs, whose images are compared; None for all.

    StackError when they are not of the same images; ConfigError when neither `lr_address` nor the
    SR file gives the scale.
    """
    chosen = judged(hr_address, split, view.frames)
    seen, others = viewed(sr_address, [one for one in (hr_address, lr_address) if one],
                          replace(view, frames=chosen.frames or view.frames), split is not None)
    with ExitStack() as stacks:
        sr, hr, *more = (stacks.enter_context(one.open(no_data)) for one in (seen, *others))
        check_same_images(sr, hr)
        lr = more[0] if more else None
        process = read_process(sr)
        model = recorded_model(sr, process)
        if lr is not None:
            check_lr(lr, hr)
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
        scale = model["scale"] if lr is None else hr.height / lr.height
        views = [Viewed(stack.address, one.view) for stack, one in
                 zip((sr, hr, *more), (seen, *others), strict=True)]
        return Comparison(*views[:2], views[2] if lr is not None else None, regression, extent(sr),
                          sr.num_images, scale, model.get("window_px"),
                          find_value_range(sr, hr, process), tuple(failed), no_data,
                          judged=with_trained(chosen, hr),
                          **({"seamless": "no windows were put together"}
                             if "window_px" in model else {}))


def open_compared(comparison: Comparison, stacks: ExitStack) -> ComparedStacks:
    """Open all stacks, to be closed by `stacks`."""
    opened = [one and stacks.enter_context(one.open(comparison.no_data)) for one in
              (comparison.sr, comparison.hr, comparison.lr, comparison.regression)]
    return ComparedStacks(comparison, *opened)


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
    check_dtype(sr, hr)


def check_lr(lr: Stack, hr: Stack) -> None:
    """StackError unless `lr` can be the LR stack of `hr`."""
    same = (lr.num_images, lr.channels) == (hr.num_images, hr.channels) and lr.height < hr.height
    if not same or abs(lr.height * hr.width - lr.width * hr.height) > max(hr.height, hr.width):
        raise StackError(f"{lr.address}: expected {extent(hr)} made smaller, got {extent(lr)}; "
                         "name the LR stack that belongs to this HR stack")
    check_dtype(lr, hr)


def check_dtype(stack: Stack, hr: Stack) -> None:
    if stack.dtype.newbyteorder("=") != hr.dtype.newbyteorder("="):
        raise StackError(f"{stack.address}: expected {hr.dtype} like {hr.address}, got "
                         f"{stack.dtype}; values of different types cannot be compared, "
                         "convert one")


def find_value_range(sr: Stack, hr: Stack, process: Mapping) -> ValueRange:
    """The limits of uint8 and uint16; else what the SR file records, else HR's range."""
    if sr.dtype.kind == "u" and sr.dtype.itemsize <= 2:
        limits = np.iinfo(sr.dtype)
        return ValueRange(float(limits.min), float(limits.max))
    recorded = process.get("value_range")
    if recorded is None:
        return hr.range()
    is_pair = isinstance(recorded, list) and len(recorded) == 2
    if not (is_pair and all(isinstance(value, int | float) for value in recorded)):
        raise StackError(f"{sr.address}: expected a value_range of two numbers in its "
                         f"/entry/process, got {recorded!r}; make it again")
    return ValueRange(*recorded)


def recorded_model(sr: Stack, process: Mapping) -> dict:
    """`scale` and `window_px` of the model that made the SR stack, as far as its file has them;
    None for a window that was the whole image."""
    try:
        written = process.get("configuration")
        model = {} if written is None else parse_yaml(written)["model"]
        known = {name: model[name] for name in ("scale", "window_px") if name in model}
        if all(type(value) is int and value > 1 or (name, value) == ("window_px", None)
               for name, value in known.items()):
            return known
    except (TypeError, KeyError, YAMLError):
        pass
    raise StackError(f"{sr.address}: its /entry/process holds no configuration of swinmpi; "
                     "make it again")


def extent(stack: Stack) -> str:
    return (f"{stack.num_images} images of {stack.height} x {stack.width} px "
            f"with {stack.channels} channels")


def read_hwc(stack: Stack, image_index: int) -> np.ndarray:
    """One image as (H, W, C) floats, raw values, NaN for no data."""
    return np.moveaxis(stack.read(image_index), 0, -1).copy()


def fill(image: np.ndarray) -> np.ndarray:
    """NaN pixels of (H, W, C) take the nearest value, so that resizing does not spread them."""
    return np.moveaxis(mask_invalid(np.moveaxis(image, -1, 0))[0], 0, -1)
