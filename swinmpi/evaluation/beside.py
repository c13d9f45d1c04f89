"""Several SR stacks of the same images side by side, with their figures, in one picture."""
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from PIL import Image

from swinmpi.errors import ConfigError
from swinmpi.evaluation.compared import check_compared, open_compared
from swinmpi.evaluation.report import TITLES, caption
from swinmpi.images.contact_sheet import closeup_row, closeup_sheet, to_uint8
from swinmpi.images.figures import FIGURES, ComparedImage, compare_image

CAPTIONED = tuple(figure for figure in FIGURES if figure.name in ("psnr", "ssim"))


def sheet_of_stacks(stacks: Mapping[str, str], reference: str, lr: str | None = None,
                    images: Sequence[int] | None = None, most: int = 6) -> Image.Image:
    """Rows: the images (by index, or the first `most` that every run made); columns: where it is,
    LR, bicubic, every stack under its label, HR. One process.

    stacks: addresses by label. Raises as `check_compared`, and ConfigError where an image is asked
    for that is not there.
    """
    compared = {label: check_compared(address, reference, lr) for label, address in stacks.items()}
    common = set.intersection(*(set(one.image_indices) for one in compared.values()))
    chosen = sorted(common)[:most] if images is None else list(images)
    if missing := [index for index in chosen if index not in common]:
        raise ConfigError(f"expected images that are in every stack, 0 to {max(common)}, "
                          f"got {', '.join(map(str, missing))}")
    rows, captions = [], []
    with ExitStack() as opened:
        readers = {label: open_compared(one, opened) for label, one in compared.items()}
        limits = next(iter(readers.values())).hr.range()
        for index in chosen:
            versions = {}
            for label, reader in readers.items():
                seen_lr, read, _ = reader.read(index)
                versions.setdefault(TITLES["bicubic"], read["bicubic"])
                versions[label] = read["sr"]
            span = next(iter(compared.values())).value_range.span
            captions.append([caption(compare_image(ComparedImage(image, read["hr"], seen_lr, span),
                                                   CAPTIONED), CAPTIONED)
                             for image in versions.values()])
            small, *tiles = (to_uint8(image, limits.low, limits.high)
                             for image in (seen_lr, *versions.values(), read["hr"]))
            rows.append(closeup_row(small, tiles))
    return closeup_sheet(rows, [*versions, "HR"], [f"image {index}" for index in chosen], captions)
