"""The stacks an evaluation sets against each other: opened, checked to be the same images, read image by image."""
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from swinmpi.config.strict_yaml import YAMLError, parse_yaml
from swinmpi.errors import ConfigError, StackError
from swinmpi.images.imresize import imresize
from swinmpi.images.metrics import valid_pixels
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.result import find_failed, find_sibling, read_process
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange, mask_invalid


@dataclass(frozen=True)
class Opposed:
    """Open stacks of the same images (`lr` None: HR made smaller) and what their figures are measured with."""

    sr: Stack
    hr: Stack
    lr: Stack | None
    regression: Stack | None
    scale: float
    window_px: int | None
    value_range: ValueRange
    failed: Sequence[int]

    @property
    def data_range(self) -> float:
        """Span of possible values, the same for every image."""
        return self.value_range.high - self.value_range.low

    @property
    def image_indices(self) -> list[int]:
        """The images to evaluate: all but those the run gave up."""
        return sorted(set(range(self.sr.num_images)) - set(self.failed))

    def read(self, image_index: int) -> tuple[np.ndarray, dict[str, np.ndarray], int]:
        """(LR, versions of HR size by name, HR last, number of NaN pixels): (H, W, C) float32, raw values.

        A pixel that is not finite in SR or HR is NaN in every version, so that all are judged on the same pixels.
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
        return imresize(stored, scale=1 / self.scale).astype(np.float32)

    def enlarge(self, lr: np.ndarray, size: Sequence[int]) -> np.ndarray:
        """Bicubic, in values that the stack's dtype can hold."""
        enlarged = imresize(fill(lr), size=size)
        if self.sr.dtype.kind == "f":
            return enlarged
        return np.rint(enlarged).clip(self.value_range.low, self.value_range.high)


def open_opposed(sr_address: str, hr_address: str, lr_address: str | None, stacks: ExitStack) -> Opposed:
    """Open all stacks, to be closed by `stacks`. StackError when they are not the same images; ConfigError when neither
    `lr_address` nor the SR file tells the scale."""
    inspect_stacks([address for address in (sr_address, hr_address, lr_address) if address])
    sr, hr = (stacks.enter_context(Stack.open(address)) for address in (sr_address, hr_address))
    check_same_images(sr, hr)
    lr = stacks.enter_context(Stack.open(lr_address)) if lr_address else None
    process = read_process(sr)
    model = recorded_model(sr, process)
    if lr is not None:
        check_lr(lr, hr)
    elif "scale" not in model:
        raise ConfigError(f"{sr.address}: does not tell its scale; name the LR stack it was made from with --lr")
    failed = find_failed(sr)
    if len(failed) == sr.num_images:
        raise StackError(f"{sr.address}: the run that made it gave up all {sr.num_images} images; run it again")
    regression = find_sibling(sr, "regression")
    return Opposed(sr, hr, lr, stacks.enter_context(Stack.open(regression)) if regression else None,
                   model["scale"] if lr is None else hr.height / lr.height, model.get("window_px"),
                   find_value_range(sr, hr, process), failed)


def check_same_images(sr: Stack, hr: Stack) -> None:
    """StackError unless both hold as many images of the same size, channels and dtype; layouts may differ."""
    if extent(sr) != extent(hr):
        raise StackError(f"{hr.address}: expected {extent(sr)} as in {sr.address}, got {extent(hr)}; "
                         "name the HR stack that belongs to this SR stack")
    check_dtype(sr, hr)


def check_lr(lr: Stack, hr: Stack) -> None:
    """StackError unless `lr` can be the LR stack of `hr`."""
    same = lr.num_images == hr.num_images and lr.channels == hr.channels and lr.height < hr.height
    if not same or abs(lr.height * hr.width - lr.width * hr.height) > max(hr.height, hr.width):
        raise StackError(f"{lr.address}: expected {extent(hr)} made smaller, got {extent(lr)}; "
                         "name the LR stack that belongs to this HR stack")
    check_dtype(lr, hr)


def check_dtype(stack: Stack, hr: Stack) -> None:
    if stack.dtype.newbyteorder("=") != hr.dtype.newbyteorder("="):
        raise StackError(f"{stack.address}: expected {hr.dtype} like {hr.address}, got {stack.dtype}; values of "
                         "different types cannot be compared, convert one")


def find_value_range(sr: Stack, hr: Stack, process: Mapping) -> ValueRange:
    """The limits of an integer type; for floats what the SR file records, else the range of the whole HR stack."""
    if sr.dtype.kind in "iu":
        limits = np.iinfo(sr.dtype)
        return ValueRange(float(limits.min), float(limits.max))
    recorded = process.get("value_range")
    if recorded is None:
        return hr.range()
    if not (isinstance(recorded, list) and len(recorded) == 2 and all(isinstance(value, int | float) for value in recorded)):
        raise StackError(f"{sr.address}: expected a value_range of two numbers in its /entry/process, got {recorded!r}; make "
                         "it again")
    return ValueRange(*recorded)


def recorded_model(sr: Stack, process: Mapping) -> dict:
    """`scale` and `window_px` of the model that made the SR stack, as far as its file tells them."""
    try:
        model = parse_yaml(process.get("configuration", ""))["model"] if "configuration" in process else {}
        known = {name: model[name] for name in ("scale", "window_px") if name in model}
        if all(type(value) is int and value > 1 for value in known.values()):
            return known
    except (TypeError, KeyError, YAMLError):
        pass
    raise StackError(f"{sr.address}: its /entry/process holds no configuration of swinmpi; make it again")


def extent(stack: Stack) -> str:
    return f"{stack.num_images} images of {stack.height} x {stack.width} px with {stack.channels} channels"


def read_hwc(stack: Stack, image_index: int) -> np.ndarray:
    """One image as (H, W, C) float32, raw values."""
    return np.moveaxis(stack.read(image_index), 0, -1).copy()


def fill(image: np.ndarray) -> np.ndarray:
    """NaN pixels of (H, W, C) take the nearest value, so that resizing does not spread them."""
    return np.moveaxis(mask_invalid(np.moveaxis(image, -1, 0))[0], 0, -1)
