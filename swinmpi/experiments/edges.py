"""How much worse an image is along its border: what the thesis's naive shift leaves (fig. 2.6)."""
import numpy as np

from swinmpi.images.figures import FIGURES, ComparedImage, Figure

RING_PX = 8  # the s of the thesis's shift at 64 px


def edge_excess(one: ComparedImage) -> float:
    """Mean |error| in a ring of RING_PX along the border over that inside; 1: the same. NaN where
    nothing is inside, or is wrong inside."""
    error = np.abs(np.asarray(one.image, np.float64) - one.hr)
    inside = np.zeros(error.shape[:2], bool)
    inside[RING_PX:-RING_PX, RING_PX:-RING_PX] = True
    if not inside.any():
        return float("nan")
    within = np.nanmean(error[inside])
    return float(np.nanmean(error[~inside]) / within) if within else float("nan")


EDGE = Figure("edge", "edge", ".3f", "error along the image's border over that inside", 1.0,
              compared=edge_excess)
FIGURES_AND_EDGE = (*FIGURES, EDGE)
