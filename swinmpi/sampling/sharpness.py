"""Whether the images of a run are as sharp and as noisy as those that its checkpoint knows."""
from collections.abc import Iterator, Mapping

import numpy as np

from swinmpi.errors import StackError
from swinmpi.images.detail import fine_detail
from swinmpi.storage.pictures.source import PictureStack
from swinmpi.storage.stack import Stack

# Of log2, see `fine_detail`: so far outside of the trained images is far; a model trained on few
# kinds of images is taken to know others nearby.
FAR, NARROWEST = 0.5, 3.0
LOOKED_AT = 8  # images, evenly over the stack


def how_unlike(stack: Stack | PictureStack, header: Mapping) -> str | None:
    """How far the fine detail of a stack is from what a model was trained on, and what to do; None
    where it is near, or where the checkpoint's header does not tell."""
    trained = header.get("fine_detail")
    known = isinstance(trained, list) and len(trained) == 2 and all(
        isinstance(value, int | float) for value in trained)
    found = [value for value in map(fine_detail, some_images(stack)) if np.isfinite(value)]
    if not known or not found:
        return None
    (low, high), own = trained, float(np.median(found))
    margin = max(FAR, (NARROWEST - (high - low)) / 2)
    if low - margin <= own <= high + margin:
        return None
    what, advice = (("blurred, or were enlarged before", "take them as they were recorded, shrink "
                     "them to what they resolve") if own < low else
                    ("noisy, or coarser", "expect noise to be sharpened as well, denoise them"))
    return (f"{stack.address}: its images look {what}: the energy of their finest detail is "
            f"{2**own:.2g} of that of twice its size, {2**low:.2g} to {2**high:.2g} in the images "
            f"that the checkpoint was trained on; {advice}, or train on such images")


def some_images(stack: Stack | PictureStack) -> Iterator[np.ndarray]:
    """Of those that can be read."""
    last = stack.num_images - 1
    for index in sorted({round(place) for place in np.linspace(0, last, LOOKED_AT)}):
        try:
            yield stack.read(index)
        except StackError:
            continue
