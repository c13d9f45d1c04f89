"""What the thesis draws to explain itself, of any image: its windows (figure 2.1), what tells them
apart (2.2), how they are shifted (2.5 to 2.7), and what PSNR does not see (3.1)."""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from swinmpi.images.contact_sheet import MARK, contact_sheet, to_uint8
from swinmpi.images.metrics import psnr, ssim
from swinmpi.windows.frames import from_frame, patchify, to_frame
from swinmpi.windows.grid import WindowGrid, row_and_col
from swinmpi.windows.masks import gaussian_masks
from swinmpi.windows.shift import circular_shift

GAP_PX, LINE = 4, (255, 255, 255)
MARKED = tuple(int(MARK[at:at + 2], 16) for at in (1, 3, 5))
BISECTIONS = 40

Shift = tuple[int, int]


def patches_picture(image: np.ndarray, grid: WindowGrid) -> Image.Image:
    """Figure 2.1: the image, and its windows apart. image: uint8 (height_px, width_px, 3)."""
    windows = patchify(frame_of(image, grid, (0, 0))[None], grid.window_px)[0]
    side = grid.window_px + GAP_PX
    apart = np.full((grid.rows * side - GAP_PX, grid.cols * side - GAP_PX, 3), 255, np.uint8)
    for position, window in enumerate(windows):
        row, col = row_and_col(grid, position)
        apart[row * side:row * side + grid.window_px,
              col * side:col * side + grid.window_px] = hwc(window)
    told = f"{grid.rows} x {grid.cols} windows of {grid.window_px} px"
    return contact_sheet([[image, apart]], ["image", "windows"], [["", told]])


def masks_picture(image: np.ndarray, grid: WindowGrid, positions: Sequence[int],
                  shift: Shift = (0, 0), width_ratio: float = 1.5,
                  lr_px: int = 32) -> Image.Image:
    """Figure 2.2: for some window positions the mask that their network is told, lr_px x lr_px, and
    where on the image they lie. image: uint8 (height_px, width_px, 3)."""
    masks = gaussian_masks(grid, shift, positions, width_ratio, lr_px, lr_px)[:, 0].numpy()
    rows = [[to_uint8(mask, -1.0, 1.0), outlined(image, grid, shift, position)]
            for mask, position in zip(masks, positions, strict=True)]
    return contact_sheet(rows, ["mask", f"windows, shift {shift}"],
                         [["", f"window {position}"] for position in positions],
                         max_rows=len(rows))


def shifts_picture(image: np.ndarray, grid: WindowGrid) -> Image.Image:
    """Figures 2.5 and 2.7: the circular pattern of `grid.max_shift_px`, on the frames that are cut
    and on the image. image: uint8 (height_px, width_px, 3)."""
    shifts = [circular_shift(step, grid.max_shift_px) for step in range(4)]
    frames = [lined(hwc(frame_of(image, grid, shift)), lines(grid)) for shift in shifts]
    images = [outlined(image, grid, shift) for shift in shifts]
    return contact_sheet([frames, images], [f"shift {shift}" for shift in shifts],
                         [["frame"] * 4, ["image"] * 4])


def distortions_picture(image: np.ndarray, psnr_db: float = 24.0) -> Image.Image:
    """Figure 3.1: the image distorted in five ways, all at one PSNR, with their SSIM.

    image: uint8 (H, W, 3). Raises ValueError where a distortion cannot reach it: a flat image.
    """
    made = {name: distorted(image, distort, psnr_db) for name, distort in DISTORTIONS.items()}
    captions = [f"{psnr(one, image, 255):.1f} dB\nSSIM {ssim(one, image, 255):.3f}"
                for one in made.values()]
    return contact_sheet([[image, *made.values()]], ["image", *made], [["", *captions]])


def distorted(image: np.ndarray, distort: Callable[[np.ndarray, float], np.ndarray],
              psnr_db: float) -> np.ndarray:
    """As strongly as gives that PSNR, uint8."""
    def at(strength: float) -> np.ndarray:
        return np.rint(distort(image.astype(np.float64), strength)).clip(0, 255).astype(np.uint8)

    weak, strong = 0.0, 1.0
    if psnr(at(strong), image, 255) > psnr_db:
        raise ValueError(f"expected an image that can be distorted to {psnr_db:g} dB, got one "
                         "without detail or light")
    for _ in range(BISECTIONS):
        middle = (weak + strong) / 2
        weak, strong = ((middle, strong) if psnr(at(middle), image, 255) > psnr_db
                        else (weak, middle))
    # Rounded, an image brightens in steps.
    return min(at(weak), at(strong), key=lambda one: abs(psnr(one, image, 255) - psnr_db))


def with_noise(image: np.ndarray, strength: float) -> np.ndarray:
    return image + 255 * strength * np.random.default_rng(0).standard_normal(image.shape)


def with_blocks(image: np.ndarray, strength: float) -> np.ndarray:
    """Every square of 8 px drawn towards its mean, as JPEG and separate windows do."""
    rows, cols = (np.arange(size) // 8 for size in image.shape[:2])
    block = rows[:, None] * (cols.max() + 1) + cols
    means = [np.bincount(block.ravel(), channel.ravel()) / np.bincount(block.ravel())
             for channel in np.moveaxis(image, -1, 0)]
    flat = np.stack([mean[block] for mean in means], axis=-1)
    return image + 4 * strength * (flat - image)


DISTORTIONS = {
    "brighter": lambda image, strength: image + 255 * strength,
    "less contrast": lambda image, strength: image + strength * (image.mean() - image),
    "noise": with_noise,
    "blur": lambda image, strength: gaussian_filter(image, (40 * strength, 40 * strength, 0)),
    "blocks": with_blocks,
}


def outlined(image: np.ndarray, grid: WindowGrid, shift: Shift,
             position: int | None = None) -> np.ndarray:
    """The image with the borders of its windows at a shift, one of them marked, uint8 (H, W, 3)."""
    drawn = lined(image, from_frame(lines(grid), grid, shift))
    if position is not None:
        drawn[from_frame(lines(grid, position), grid, shift).numpy()] = MARKED
    return drawn


def lines(grid: WindowGrid, position: int | None = None) -> torch.Tensor:
    """bool (frame_height_px, frame_width_px): the outermost pixels of all windows, or the two
    outermost of one."""
    frame = torch.zeros(grid.frame_height_px, grid.frame_width_px, dtype=torch.bool)
    for one in range(grid.num_positions) if position is None else (position,):
        top, left = (place * grid.window_px for place in row_and_col(grid, one))
        window = frame[top:top + grid.window_px, left:left + grid.window_px]
        width = 1 if position is None else 2
        window[:width] = window[-width:] = True
        window[:, :width] = window[:, -width:] = True
    return frame


def lined(image: np.ndarray, where: torch.Tensor) -> np.ndarray:
    drawn = np.array(image)
    drawn[where.numpy()] = LINE
    return drawn


def frame_of(image: np.ndarray, grid: WindowGrid, shift: Shift) -> torch.Tensor:
    """(3, frame_height_px, frame_width_px)."""
    return to_frame(torch.from_numpy(np.moveaxis(image, -1, 0).copy()), grid, shift)


def hwc(image: torch.Tensor) -> np.ndarray:
    return np.moveaxis(image.numpy(), 0, -1)
