"""Quality figures of an SR image against its HR image. NaN pixels, of either image, count nowhere.

Images are numpy, (H, W) or (H, W, C), any real type, both in the same units; `data_range` is the
span of possible values in those units (255 for 8 bit). A figure that cannot be computed (all NaN,
image too small) is NaN. Which figures there are, and their names: figures.py.

Without torch at import, because the names are needed before a command's first error.
"""
from collections.abc import Sequence

import numpy as np

SSIM_WINDOW_PX = 7
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def psnr(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """Peak signal-to-noise ratio in dB, all channels together; inf when equal."""
    return psnr_of_sums(squared_sums(a, b), data_range)


def ssim(a: np.ndarray, b: np.ndarray, data_range: float) -> float:
    """Structural similarity, -1..1, as scikit-image's: uniform 7 x 7 window, mean over channels.

    Windows that touch a NaN pixel are left out.
    """
    # Imported here: 0.4 s that every rank of a sampling would wait for.
    from skimage.metrics import structural_similarity
    from skimage.morphology import erosion
    a, b = float_pair(a, b)
    if min(a.shape[:2]) < SSIM_WINDOW_PX:
        return float("nan")
    valid = valid_pixels(a, b)
    a, b = (np.where(np.isfinite(image), image, 0.0) for image in (a, b))
    _, similarity = structural_similarity(a, b, win_size=SSIM_WINDOW_PX, data_range=data_range,
                                          full=True, channel_axis=2 if a.ndim == 3 else None)
    whole_window = erosion(valid.astype(np.uint8), np.ones((SSIM_WINDOW_PX, SSIM_WINDOW_PX))) > 0
    pad = SSIM_WINDOW_PX // 2
    inside = np.s_[pad:-pad, pad:-pad]
    return mean_or_nan(similarity[inside][whole_window[inside]])


def lr_psnr(sr: np.ndarray, lr: np.ndarray, data_range: float) -> float:
    """PSNR in dB between the LR image and the SR image shrunk to its size (bicubic): consistency.

    LR pixels to which a NaN pixel of the SR image contributes are left out.
    """
    whole = [range(size) for size in lr.shape[:2]]
    return psnr_of_sums(squared_sums(shrink_part(sr, (0, 0), sr.shape, lr.shape, whole), lr),
                        data_range)


def shrink_part(sr: np.ndarray, origin: Sequence[int], size: Sequence[int], lr_size: Sequence[int],
                wanted: Sequence[range]) -> np.ndarray:
    """The LR rows and columns `wanted` of an SR image shrunk by MATLAB's bicubic imresize, float64.

    sr: a part of the image of `size` that starts at `origin` and holds all they depend on. LR
    pixels to which a pixel of it that is not finite contributes are NaN.
    """
    import torch

    from swinmpi.images.imresize import imresize_part
    # Channels first, which is as they are made, and for the columns several times as fast.
    sr = torch.from_numpy(np.array(np.moveaxis(sr, (0, 1), (-2, -1)), dtype=np.float64, order="C"))
    # a sum is one pass over the memory, the question for each pixel five
    missing = None if sr.sum().isfinite() else ~sr.isfinite()

    def shrink(part: torch.Tensor) -> np.ndarray:
        made = imresize_part(part, origin, size[:2], lr_size[:2], wanted)
        return np.ascontiguousarray(made.movedim((-2, -1), (0, 1)).numpy())

    shrunk = shrink(sr if missing is None else sr.masked_fill(missing, 0.0))
    if missing is not None:
        shrunk[shrink(missing.double()) != 0] = np.nan
    return shrunk


def frechet_distance(features: np.ndarray, reference: np.ndarray) -> float:
    """|m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of two sets of features, float64 (N, D):
    FID where these are Inception's (Heusel et al. 2017, eq. 6). NaN for fewer than two images.

    With S_1 = A^T A and S_2 = B^T B the eigenvalues of S_1 S_2 are the squared singular values of
    A B^T, which is small where images are fewer than features.
    """
    if min(len(features), len(reference)) < 2:
        return float("nan")
    roots, apart = [], features.mean(axis=0) - reference.mean(axis=0)
    for values in (features, reference):
        root = (values - values.mean(axis=0)) / np.sqrt(len(values) - 1)
        roots.append(np.linalg.qr(root, mode="r") if len(root) > root.shape[1] else root)
    mixed = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum((root ** 2).sum() for root in roots)
    return max(0.0, float((apart ** 2).sum() + spread - 2 * mixed))


def psnr_of_sums(sums: Sequence[float], data_range: float) -> float:
    """PSNR in dB of (sum of squared differences, number of values)."""
    squared, count = sums
    if not count:
        return float("nan")
    if squared == 0:
        return float("inf")
    return float(10 * np.log10(data_range ** 2 / (squared / count)))


def misfit_of_sums(sums: Sequence[float], data_range: float) -> float:
    """Root mean square in grey levels, 1/255 of the data range, of the same; NaN of nothing."""
    squared, count = sums
    return float(np.sqrt(squared / count) / data_range * 255) if count else float("nan")


def squared_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(sum of squared differences, number of finite ones)."""
    a, b = float_pair(a, b)
    squared = (a - b) ** 2
    valid = np.isfinite(squared)
    return np.array([squared[valid].sum(), valid.sum()])


def detail(sr: np.ndarray, hr: np.ndarray) -> float:
    """Mean |Laplacian| of the SR image's luma over the HR image's: 1 is as much, 0 is none."""
    sharp, true = (laplacian(luma(image)) for image in float_pair(sr, hr))
    valid = np.isfinite(sharp) & np.isfinite(true)
    return ratio_of_means(np.abs(sharp[valid]), np.abs(true[valid]))


def seam_score(sr: np.ndarray, reference: np.ndarray, window_px: int) -> float:
    """How steep the error is across borders of unshifted windows over elsewhere (no seam: 1).

    `reference`: the HR image, or the same image made with one window. Taken from the error, because
    gradients of the image itself say nothing. NaN when no window border lies inside the image. One
    image is noisy: use the mean of many.
    """
    whole = [range(size) for size in np.shape(sr)[:2]]
    return seam_of_sums(seam_sums(sr, reference, (0, 0), whole, window_px))


def seam_sums(sr: np.ndarray, reference: np.ndarray, origin: Sequence[int],
              wanted: Sequence[range], window_px: int) -> np.ndarray:
    """(sum of error gradients across window borders, their number, the same elsewhere).

    sr, reference: parts of the images that start at `origin`. A gradient counts where its second
    pixel is `wanted`.
    """
    error, sums = np.subtract(*float_pair(sr, reference)), np.zeros(4)
    for axis in (0, 1):
        second = [range(line.start + (at == axis and line.start == 0), line.stop)
                  for at, line in enumerate(wanted)]
        steps = error_steps(error, axis, within(second, origin))
        on_border = np.array(second[axis]) % window_px == 0
        for first, chosen in ((0, steps[on_border]), (2, steps[~on_border])):
            chosen = chosen.ravel()
            total = chosen.sum()
            if not np.isfinite(total):
                chosen = chosen[np.isfinite(chosen)]
                total = chosen.sum()
            sums[first:first + 2] += total, chosen.size
    return sums


def error_steps(error: np.ndarray, axis: int, second: Sequence[slice]) -> np.ndarray:
    """|difference| of the pixels `second` to those before them along `axis`, which comes first."""
    rows, cols = second
    if axis == 0:
        before = error[slice(rows.start - 1, rows.stop - 1), cols]
    else:
        before = error[rows, slice(cols.start - 1, cols.stop - 1)]
    return np.moveaxis(np.abs(error[rows, cols] - before), axis, 0)


def within(lines: Sequence[range], origin: Sequence[int]) -> tuple[slice, slice]:
    """Where rows and columns of an image lie in a part of it that starts at `origin`."""
    rows, cols = (slice(line.start - start, line.stop - start)
                  for line, start in zip(lines, origin, strict=True))
    return rows, cols


def seam_of_sums(sums: Sequence[float]) -> float:
    """The seam score of `seam_sums`, added up over an image."""
    across, num_across, elsewhere, num_elsewhere = sums
    if not (num_across and num_elsewhere and elsewhere):
        return float("nan")
    return float(across / num_across / (elsewhere / num_elsewhere))


def fine_share(image: np.ndarray, scale: float) -> float:
    """How much of an image's power lies at frequencies that an LR image, `scale` times smaller,
    cannot hold: 0..1. NaN where a pixel is."""
    power = spectral_power(image)
    limits = [np.abs(np.fft.fftfreq(size)) <= 0.5 / scale for size in power.shape]
    total = power.sum()
    coarse = power[np.ix_(*limits)].sum()
    return float(1 - coarse / total) if total > 0 else float("nan")


def radial_power(image: np.ndarray, num_bins: int) -> np.ndarray:
    """Mean power by frequency, in `num_bins` equal steps of 0..0.5 cycles per px; NaN where a step
    has none, all NaN where a pixel is."""
    power = spectral_power(image)
    rows, cols = (np.fft.fftfreq(size) for size in power.shape)
    step = (np.hypot(rows[:, None], cols) * 2 * num_bins).astype(int).ravel()
    count, total = (np.bincount(step, weights, num_bins)[:num_bins]
                    for weights in (None, power.ravel()))
    return np.divide(total, count, out=np.full(num_bins, np.nan), where=count > 0)


def spectral_power(image: np.ndarray) -> np.ndarray:
    """(H, W) power of the luma around its mean, under a Hann window, which keeps the steps between
    opposite edges out; at the frequencies of `fftfreq`."""
    grey = luma(np.asarray(image, np.float64))
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in grey.shape))
    return np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 / (window ** 2).sum()


def luma(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) or (H, W, 1) or (H, W) -> (H, W) in the same units."""
    if image.ndim == 2:
        return image
    return image @ LUMA if image.shape[2] == 3 else image.mean(axis=2)


def laplacian(image: np.ndarray) -> np.ndarray:
    """Five-point Laplacian of the interior, (H, W) -> (H - 2, W - 2)."""
    above, below, middle = image[:-2, 1:-1], image[2:, 1:-1], image[1:-1, 1:-1]
    return above + below + image[1:-1, :-2] + image[1:-1, 2:] - 4 * middle


def valid_pixels(*images: np.ndarray) -> np.ndarray:
    """(H, W) bool: finite in every channel of every image."""
    finite = [np.isfinite(image) for image in images]
    planes = [plane if plane.ndim == 2 else plane.all(axis=2) for plane in finite]
    return np.logical_and.reduce(planes)


def float_pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; ValueError unless they have one shape."""
    if a.shape != b.shape:
        raise ValueError(f"expected two images of one shape, got {a.shape} and {b.shape}")
    return np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)


def mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def ratio_of_means(above: np.ndarray, below: np.ndarray) -> float:
    denominator = mean_or_nan(below)
    return mean_or_nan(above) / denominator if denominator else float("nan")
