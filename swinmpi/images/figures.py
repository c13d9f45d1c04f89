"""The table of figures: what each is called, how it is printed and how it is computed.

A figure is used in one or more of three places, and an entry says how it is computed there:
 - `summed`: while a run samples, without the truth, from rectangular parts of an image that lie on
   the ranks that made them. Every part gives some sums, the sums of all parts are added up, and
   `finish` makes a figure of them, stored under `name` in OUT's /entry/per_image.
 - `compared`: in an evaluation, from a whole image beside the true one, printed and stored under
   `name` in evaluate.json.
 - `gathered`: in an evaluation, from the features of all images beside those of all true ones; one
   number for a version, stored beside the means.
To add a figure, add its formula to metrics.py and its entry to FIGURES. Every function takes
another table in place of FIGURES. Without torch at import, as metrics.py.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from swinmpi.images import metrics

BORDER_LR_PX = 3  # what a part holds beyond its own pixels: shrinking by bicubic reaches 2.5 LR px
NOTHING = float("nan")


@dataclass(frozen=True, eq=False)
class ImagePart:
    """A rectangle of a finished image, with the border that figures of its pixels depend on.

    sr, lr: raw values; sample, base: what the network made and what it added detail to, around
    -1..1. All (h, w, C), over the SR pixels `held` or the LR pixels under them. wanted: the rows
    and columns of SR pixels that the part stands for. lr_size: of the whole LR image.
    window_px: None where one window is the whole image, which has no seam.
    """

    sr: np.ndarray
    lr: np.ndarray
    sample: np.ndarray
    base: np.ndarray
    wanted: tuple[range, range]
    held: tuple[range, range]
    lr_size: tuple[int, int]
    scale: int
    window_px: int | None

    def __post_init__(self):
        for wanted, held, size in zip(self.wanted, self.held, self.size, strict=True):
            needed = with_border(wanted, size, self.scale)
            if not (0 <= held.start <= needed.start and needed.stop <= held.stop <= size):
                raise ValueError(f"an image part for {wanted}: expected it to hold {needed} of "
                                 f"{size} SR pixels, got {held}")
        sides, lr_sides = ([len(line) for line in lines] for lines in (self.held, self.lr_held))
        for image, expected in ((self.sr, sides), (self.sample, sides), (self.base, sides),
                                (self.lr, lr_sides)):
            if list(image.shape[:2]) != expected:
                raise ValueError(f"an image part: expected {expected} pixels, got {image.shape}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole SR image."""
        height, width = self.lr_size
        return height * self.scale, width * self.scale

    @property
    def origin(self) -> tuple[int, int]:
        """SR row and column at which the part begins."""
        return self.held[0].start, self.held[1].start

    @property
    def lr_held(self) -> tuple[range, range]:
        return lr_range(self.held[0], self.scale), lr_range(self.held[1], self.scale)

    @property
    def lr_wanted(self) -> tuple[range, range]:
        return lr_range(self.wanted[0], self.scale), lr_range(self.wanted[1], self.scale)


@dataclass(frozen=True, eq=False)
class ComparedImage:
    """One version of an image beside the truth: image and hr (H, W, C), lr (h, w, C), raw values.

    lr: None where nothing but the image made smaller is known. window_px: None where it is not
    known. distance: LPIPS of two such images, None where it is not available. scale: of the image
    over LR.
    """

    image: np.ndarray
    hr: np.ndarray
    lr: np.ndarray | None
    data_range: float
    window_px: int | None = None
    distance: Callable[[np.ndarray, np.ndarray], float] | None = None
    scale: float = 2.0


@dataclass(frozen=True)
class Summed:
    """A figure out of parts: `of_part` gives `num_sums` float64 sums, `finish` the figure.

    finish: (sums over the image, data range) -> the figure, NaN where nothing was summed.
    """

    num_sums: int
    of_part: Callable[[ImagePart], np.ndarray]
    finish: Callable[[np.ndarray, float], float]


@dataclass(frozen=True)
class Figure:
    """A figure. style: how a number is printed, a format specification.

    best: the figure of a perfect image. gathered: (features of the images, of the true ones), each
    float64 (N, D) -> the figure. optional: whether what it needs may not be installed; it is then
    printed as unavailable.
    """

    name: str
    title: str
    style: str
    description: str
    best: float
    summed: Summed | None = None
    compared: Callable[[ComparedImage], float] | None = None
    gathered: Callable[[np.ndarray, np.ndarray], float] | None = None
    optional: bool = False

    def __post_init__(self):
        if self.summed is None and self.compared is None and self.gathered is None:
            raise ValueError(f"{self.name}: expected a figure with `summed`, `compared` or "
                             "`gathered`")


Figures = Sequence[Figure]


def consistency_of_part(part: ImagePart) -> np.ndarray:
    """(sum of squared differences, number of values) of the wanted LR pixels."""
    shrunk = metrics.shrink_part(part.sr, part.origin, part.size, part.lr_size, part.lr_wanted)
    rows, cols = metrics.within(part.lr_wanted, [line.start for line in part.lr_held])
    return metrics.squared_sums(shrunk, part.lr[rows, cols])


def seams_of_part(part: ImagePart) -> np.ndarray:
    """(sum of gradients across window borders, their number, the same elsewhere), of pixels that
    have a number: what the network made of the others is not in the image."""
    if part.window_px is None:
        return np.zeros(4)
    there = np.isfinite(part.sr)
    sample = part.sample if there.all() else np.where(there, part.sample, np.nan)
    return metrics.seam_sums(sample, part.base, part.origin, part.wanted, part.window_px)


FIGURES: tuple[Figure, ...] = (
    Figure("psnr", "PSNR dB", ".2f", "peak signal-to-noise ratio to the true image", float("inf"),
           compared=lambda one: metrics.psnr(one.image, one.hr, one.data_range)),
    Figure("ssim", "SSIM", ".4f", "structural similarity to the true image", 1.0,
           compared=lambda one: metrics.ssim(one.image, one.hr, one.data_range)),
    Figure("lpips", "LPIPS", ".4f", "learned perceptual distance to the true image", 0.0,
           compared=lambda one: one.distance(one.image, one.hr) if one.distance else NOTHING,
           optional=True),
    Figure("fid", "FID", ".2f", "distance of Inception's features over all images; compare only "
           "between equally many", 0.0, gathered=metrics.frechet_distance, optional=True),
    Figure("lr_misfit", "LR misfit", ".2g", "root mean square difference of the image, shrunk, to "
           "the LR image, in grey levels (1/255 of the value range)", 0.0,
           Summed(2, consistency_of_part, metrics.misfit_of_sums)),
    Figure("lr_psnr", "LR-PSNR dB", ".2f", "PSNR of the image, shrunk, to the LR image",
           float("inf"), Summed(2, consistency_of_part, metrics.psnr_of_sums),
           compared=lambda one: (metrics.lr_psnr(one.image, one.lr, one.data_range)
                                 if one.lr is not None else NOTHING)),
    Figure("detail", "detail", ".3f", "fine detail, as a part of the true image's", 1.0,
           compared=lambda one: metrics.detail(one.image, one.hr)),
    Figure("seam", "seam", ".3f", "steepness of the error across window borders", 1.0,
           compared=lambda one: (metrics.seam_score(one.image, one.hr, one.window_px)
                                 if one.window_px else NOTHING)),
    Figure("seam_score", "seam", ".3f", "steepness of the added detail across window borders", 1.0,
           Summed(4, seams_of_part, lambda sums, data_range: metrics.seam_of_sums(sums))),
)
# Of an image without the truth; `hr` is then what the model added its detail to.
FIGURES_ALONE: tuple[Figure, ...] = (
    *(figure for figure in FIGURES if figure.name == "lr_psnr"),
    Figure("seam", "seam", ".3f", "steepness of the added detail across window borders", 1.0,
           compared=lambda one: (metrics.seam_score(one.image, one.hr, one.window_px)
                                 if one.window_px else NOTHING)),
    Figure("fine", "fine", ".3%", "power at frequencies that LR cannot hold, as a share of all",
           NOTHING, compared=lambda one: metrics.fine_share(one.image, one.scale)))
# What is gained over bicubic is told by this one.
HEADLINE = "psnr"
# Below an image of a contact sheet, line by line: figure and the text around its value.
CAPTION = ((("psnr", "{:.2f} dB"), ("ssim", "SSIM {:.3f}")),
           (("detail", "detail {:.2f}"), ("lpips", "LPIPS {:.3f}")))


def summed_figures(figures: Figures = FIGURES) -> tuple[Figure, ...]:
    """Those that a sampling run computes."""
    return tuple(figure for figure in figures if figure.summed)


def compared_figures(figures: Figures = FIGURES) -> tuple[Figure, ...]:
    """Those of an evaluation against the truth."""
    return tuple(figure for figure in figures if figure.compared)


def gathered_figures(figures: Figures = FIGURES) -> tuple[Figure, ...]:
    """Those of an evaluation that are of all images together."""
    return tuple(figure for figure in figures if figure.gathered)


def stored_names(figures: Figures = FIGURES) -> tuple[str, ...]:
    """Names in OUT's /entry/per_image."""
    return tuple(figure.name for figure in summed_figures(figures))


def count_sums(figures: Figures = FIGURES) -> int:
    """How many sums there are in all."""
    return sum(figure.summed.num_sums for figure in summed_figures(figures))


def sums_of_part(part: ImagePart, figures: Figures = FIGURES) -> np.ndarray:
    """What a part adds to the sums of its image, float64 (count_sums,)."""
    functions = [figure.summed.of_part for figure in summed_figures(figures)]
    sums = {function: function(part) for function in dict.fromkeys(functions)}
    return np.concatenate([np.zeros(0), *(sums[function] for function in functions)])


def finish_sums(sums: np.ndarray, data_range: float,
                figures: Figures = FIGURES) -> dict[str, float]:
    """The summed figures of an image, by name, out of the sums of all its parts."""
    finished, first = {}, 0
    for figure in summed_figures(figures):
        last = first + figure.summed.num_sums
        finished[figure.name] = figure.summed.finish(sums[first:last], data_range)
        first = last
    return finished


def compare_image(one: ComparedImage, figures: Figures = FIGURES) -> dict[str, float]:
    """The compared figures of an image, by name."""
    return {figure.name: figure.compared(one) for figure in compared_figures(figures)}


def lr_range(line: range, scale: int) -> range:
    """The LR pixels whose first SR pixel lies in `line`."""
    return range(-(-line.start // scale), -(-line.stop // scale))


def with_border(wanted: range, size: int, scale: int) -> range:
    """The SR pixels, of `size`, on which figures of the pixels `wanted` may depend."""
    reach = BORDER_LR_PX * scale
    return range(max(0, wanted.start - reach), min(size, wanted.stop + reach))
