"""Which images of a stack are taken: as asked, else the projections of a tomogram."""
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swinmpi.errors import ConfigError

PROJECTION = 0
KINDS = {1: "flat", 2: "dark", 3: "invalid"}  # NXtomo's image_key
PART = re.compile(r"\s*(-?\d*)\s*(?:(:)\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?)?")


@dataclass(frozen=True)
class View:
    """How a user wants a stack to be seen.

    axes: the setting data.axes, a letter for each dimension. frames: indices along the first axis
    that images follow each other along, as `4:` or `0,10,-1`. calibration: what becomes of a
    tomogram's darks and flats, the setting data.calibration.
    """

    axes: str | None = None
    frames: str | None = None
    calibration: str = "skip"


AS_STORED = View()


def check_frames(text: str | None) -> None:
    """ConfigError unless it is a list of indices and slices."""
    if text is not None:
        parse(text)


def taken(view: View, size: int, image_key: np.ndarray | None) -> tuple[int, ...] | None:
    """The frames of `size` that are taken, in this order; None for all of them.

    image_key: one number per frame, NXtomo's. ConfigError where there are none.
    """
    if view.frames is not None:
        frames = chosen(view.frames, size)
        return None if frames == tuple(range(size)) else frames
    if image_key is None or view.calibration != "skip" or not image_key.any():
        return None
    frames = tuple(np.flatnonzero(image_key == PROJECTION).tolist())
    if not frames:
        raise ConfigError(f"expected projections among its {size} frames, but its image_key has "
                          "none (0); choose frames with --frames, such as --frames 0:")
    return frames


def chosen(text: str, size: int) -> tuple[int, ...]:
    """`0,10,-1` or `4:` or `::2,1` of so many frames. ConfigError where one is not there."""
    frames: list[int] = []
    for start, is_slice, stop, step in parse(text):
        if is_slice:
            frames += range(size)[slice(start, stop, step)]
        elif not -size <= start < size:
            raise ConfigError(f"--frames {text}: expected indices of {size} frames "
                              f"(0 to {size - 1}, or from the end -1 to -{size}), got {start}")
        else:
            frames.append(start % size)
    if not frames:
        raise ConfigError(f"--frames {text}: expected some of {size} frames (0 to {size - 1}), "
                          "got none")
    if len(set(frames)) < len(frames):
        raise ConfigError(f"--frames {text}: expected every frame once, got one of {size} twice")
    return tuple(frames)


def parse(text: str) -> list[tuple[int | None, bool, int | None, int | None]]:
    """(start, whether it is a slice, stop, step) of every part."""
    found = []
    for part in text.split(","):
        match = PART.fullmatch(part)
        numbers = match and match.group(1, 3, 4)
        if (not match or "-" in numbers or not (match[2] or numbers[0])
                or numbers[2] and not int(numbers[2])):
            raise ConfigError(f"--frames: expected indices and slices such as 0,10,-1 or 4: or "
                              f"::2, got {text!r}")
        start, stop, step = (int(number) if number else None for number in numbers)
        found.append((start, bool(match[2]), stop, step))
    return found


def spelled(frames: Sequence[int]) -> str:
    """(0, 1, 2, 7) -> 0:3,7."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and runs[-1][1] == frame:
            runs[-1][1] = frame + 1
        else:
            runs.append([frame, frame + 1])
    return ",".join(str(first) if stop == first + 1 else f"{first}:{stop}" for first, stop in runs)


def told(view: View, image_key: np.ndarray | None) -> str | None:
    """One line on what the image_key means for this view; None where it means nothing."""
    if image_key is None or not image_key.any():
        return None
    counts = [f"{int((image_key == key).sum())} {name}" for key, name in KINDS.items()
              if (image_key == key).any()]
    there = f"image_key: {int((image_key == PROJECTION).sum())} projections, {', '.join(counts)}"
    if view.frames is not None:
        kept = (", those that are no projections without the network"
                if view.calibration == "bicubic" else "")
        return f"{there}; the frames {view.frames} as asked{kept}"
    return {"skip": f"{there}; only projections are taken (others by --frames, or, in "
                    "swinmpi-sample, by data.calibration)",
            "bicubic": f"{there}; all but the projections are enlarged by bicubic interpolation, "
                       "without the network, as asked",
            "network": f"{there}; all go through the network, as asked"}[view.calibration]
