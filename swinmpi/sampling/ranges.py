"""Which raw values a run maps to -1..1: as set, as the checkpoint was trained, or as measured; and
whether its images are like those that the checkpoint knows."""
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swinmpi.errors import CheckpointError, ConfigError, StackError
from swinmpi.images.likeness.usual import Usual, meanings
from swinmpi.sampling.request import is_calibration
from swinmpi.storage.pictures.listing import named
from swinmpi.storage.pictures.source import PictureStack, SameDepth
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import HIGH_QUANTILE, LOW_QUANTILE, Survey, ValueRange, survey

# In widths of the trained range: how far beyond it is far, and how little of it.
FAR_BEYOND, FAR_WITHIN = 0.5, 0.1
SPAN_PIXELS = 1 << 14  # looked at in one image, for the width of its own range
LOOKED_AT = 8  # images, evenly over the stack


@dataclass(frozen=True)
class TrainedRange:
    """The raw values that were -1 and 1 when the model was trained, and their dtype."""

    values: ValueRange
    dtype: str


@dataclass(frozen=True)
class SettledRange:
    """The range of a run. how: why it is this one, in words; is_measured: whether the stack was
    read to find it; remarks: what the user must know, a line each."""

    values: ValueRange
    how: str
    is_measured: bool = False
    remarks: tuple[str, ...] = ()


def settle_range(given: Sequence[float] | str | None, stack: Stack, trained: TrainedRange | None,
                 before: ValueRange | None = None) -> SettledRange:
    """The range for the whole stack, with its no-data values. Reads the stack, unless it is 8 bit.

    given: output.value_range; before: what an interrupted run of this stack and checkpoint found.
    """
    settled = (SettledRange(ValueRange(*given), "as set") if isinstance(given, list | tuple) else
               SettledRange(before, "as before", is_measured=True) if before is not None else
               measured(stack, None if given == "measured" else trained))
    return replace(settled, values=replace(settled.values, no_data=stack.no_data))


def measured(stack: Stack, trained: TrainedRange | None) -> SettledRange:
    """The trained range where the stack's own is near to it, else its own."""
    images = OfNetwork(stack.whole)
    found = survey(images)
    how = "of 8 bit" if stack.dtype == np.uint8 else "measured over the stack"
    own = SettledRange(found.range, how, is_measured=True,
                       remarks=(*remarks_on(stack, found), *remarks_on_dim(images, found)))
    if trained is None or trained.dtype == "uint8":
        return own
    far = how_far(found.range, trained.values)
    if far is not None:
        return replace(own, remarks=(*own.remarks, f"{stack.address}: {far}"))
    return own if stack.dtype == np.uint8 else replace(own, values=trained.values,
                                                       how="as the checkpoint was trained")


class OfNetwork:
    """The images of a whole stack that go through the network, if any, as `survey` wants them: a
    tomogram's darks and flats have a range of their own."""

    def __init__(self, stack):
        self.stack, self.dtype = stack, stack.dtype
        every = range(stack.num_images)
        self.images = [index for index in every if not is_calibration(stack, index)] or every
        self.num_images = len(self.images)
        self.spans: dict[int, float] = {}  # of pictures that were read, but for their extremes

    def read(self, index: int) -> np.ndarray:
        image = self.stack.read(self.images[index])
        if not isinstance(self.stack, SameDepth):  # images of a stack belong together
            return image
        some = image.ravel()[::max(1, image.size // SPAN_PIXELS)]
        some = some[np.isfinite(some)]
        if some.size:
            low, high = np.quantile(some, (LOW_QUANTILE, HIGH_QUANTILE))
            self.spans[index] = float(high - low)
        return image


def remarks_on_dim(images: OfNetwork, found: Survey) -> tuple[str, ...]:
    """A line on pictures that have little of the range that all pictures of a command share: 12 bit
    beside 16 bit, say."""
    names = [images.stack.name_of(index) for index, span in images.spans.items()
             if 0 < span < FAR_WITHIN * found.range.span]
    return () if not names else (
        f"{named(names)}: less than {FAR_WITHIN:.0%} of the range of all these pictures "
        f"({found.range}), so detail is made as for pictures that dim; use a command for each "
        "kind, or --set output.value_range=[low,high]",)


def remarks_on(stack: Stack, found: Survey) -> tuple[str, ...]:
    return tuple(f"{stack.address}: {remark}" for remark in found.remarks)


def how_far(own: ValueRange, trained: ValueRange) -> str | None:
    """How far a stack's range is from the one that a model was trained on, and what to do; None
    where it is near."""
    beyond = max(trained.low - own.low, own.high - trained.high) / trained.span
    within = own.span / trained.span
    if beyond > FAR_BEYOND:
        far = f"up to {beyond:.3g} times the width of these beyond"
    elif within < FAR_WITHIN:
        far = f"only {within:.2g} of their width"
    else:
        return None
    return (f"its values {own} are far from the {trained} that the checkpoint was trained on "
            f"({far}), so they are mapped by their own range; check their unit, train on such "
            f"values, or keep the trained scale: --set output.value_range=[{trained.low:.9g},"
            f"{trained.high:.9g}]")


def trained_range(header: Mapping, checkpoint: Path) -> TrainedRange | None:
    """What a checkpoint's header says of the values it was trained on, if it does."""
    if "value_range" not in header:
        return None
    try:
        low, high = header["value_range"]
        return TrainedRange(ValueRange(float(low), float(high)), str(header["value_dtype"]))
    except (TypeError, ValueError, KeyError, ConfigError):
        raise CheckpointError(f"{checkpoint}: expected a value_range of two numbers and its "
                              f"value_dtype in its header, got {header['value_range']!r:.40}; "
                              "train it again, or copy it again") from None


def how_unlike(stack: Stack | PictureStack, usual: Usual | None, values: ValueRange,
               fewest: int = 1) -> str | None:
    """In what some images of a stack, together, are unlike those that a model was trained on, and
    what to do; None where they are like them, where the checkpoint does not tell, or where there
    are fewer than `fewest`."""
    if usual is None or stack.num_images < fewest:
        return None
    looked_at = [statistics_in(image, usual, values) for image in some_images(stack)]
    found = usual.differences(looked_at)
    if not found:
        return None
    words, advice = zip(*meanings(found), strict=True)
    return (f"{stack.address}: its images look {', and '.join(words)}: unlike the {usual.images} "
            f"images of {usual.source} that the checkpoint knows; {'; '.join(advice)}; or train on "
            "such images")


def statistics_in(image: np.ndarray, usual: Usual, values: ValueRange) -> dict[str, float]:
    """Of a whole image (C, h, w) in raw values."""
    return usual.statistics(lambda rows: in_unit(image[:, rows.start:rows.stop], values),
                            image.shape[1:])


def in_unit(raw: np.ndarray, values: ValueRange) -> np.ndarray:
    """Raw values as -1..1, what is no number NaN."""
    numbers = values.no_data.hide(raw)
    return np.where(np.isfinite(numbers), values.to_unit(numbers), np.float32(np.nan))


def some_images(stack: Stack | PictureStack) -> Iterator[np.ndarray]:
    """Of those that can be read."""
    last = stack.num_images - 1
    for index in sorted({round(place) for place in np.linspace(0, last, LOOKED_AT)}):
        try:
            yield stack.read(index)
        except StackError:
            continue
