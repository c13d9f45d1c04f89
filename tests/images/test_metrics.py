"""Quality figures against closed forms and scikit-image; NaN pixels; LPIPS and its backbone."""
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from swinmpi.errors import CheckpointError
from swinmpi.images import metrics, perceptual
from swinmpi.images.imresize import imresize
from tests.support.lpips import write_backbone


def random_pair(height: int, width: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Two different smooth (H, W, C) images in 0..255."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(0, 255, (height // 4, width // 4, channels))
    a = imresize(coarse, size=(height, width)).clip(0, 255)
    return a, (a + rng.normal(0, 6, a.shape)).clip(0, 255)


def with_hole(image: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[10:14, 20:23] = np.nan
    return image


@pytest.mark.parametrize("shape", [(40, 52, 3), (40, 52, 1), (40, 52)])
def test_psnr_and_ssim_are_scikit_images(shape):
    channels = shape[2] if len(shape) == 3 else 1
    a, b = (image.reshape(shape) for image in random_pair(40, 52, channels))
    expected = peak_signal_noise_ratio(b, a, data_range=255)
    assert metrics.psnr(a, b, 255) == pytest.approx(expected, abs=1e-9)
    expected = structural_similarity(a, b, data_range=255,
                                     channel_axis=2 if len(shape) == 3 else None)
    assert metrics.ssim(a, b, 255) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_a_known_error():
    a = np.zeros((8, 8), dtype=np.uint8)
    assert metrics.psnr(a, a + 10, 255) == pytest.approx(20 * np.log10(25.5))
    assert metrics.psnr(a, a, 255) == float("inf")
    backwards = metrics.psnr(a + 10, a, 255)
    assert backwards == metrics.psnr(a, a + 10, 255), "unsigned values must not wrap around"


def test_nan_pixels_count_nowhere():
    hr, sr = random_pair(48, 48, 3)
    other = sr.copy()
    other[10:14, 20:23] += 100
    lr = imresize(hr, scale=0.5)
    for figure, arguments in [(metrics.psnr, (hr, 255)), (metrics.ssim, (hr, 255)),
                              (metrics.lr_psnr, (lr, 255)), (metrics.detail, (hr,)),
                              (metrics.seam_score, (hr, 16))]:
        value = figure(with_hole(sr), *arguments)
        assert np.isfinite(value), figure.__name__
        assert value == figure(with_hole(other), *arguments), figure.__name__
    for figure in (metrics.psnr, metrics.ssim):
        assert figure(sr, with_hole(hr), 255) == figure(with_hole(sr), hr, 255)
    nothing = np.full_like(hr, np.nan)
    assert np.isnan([metrics.psnr(nothing, hr, 255), metrics.ssim(nothing, hr, 255),
                     metrics.lr_psnr(nothing, lr, 255), metrics.detail(nothing, hr),
                     metrics.seam_score(nothing, hr, 16)]).all()


def test_lr_psnr_is_high_only_for_images_that_shrink_to_lr():
    hr, noisy = random_pair(48, 64, 3)
    lr = imresize(hr, scale=0.5)
    assert metrics.lr_psnr(hr, lr, 255) > 200
    expected = metrics.psnr(imresize(noisy, scale=0.5), lr, 255)
    assert metrics.lr_psnr(noisy, lr, 255) == pytest.approx(expected)


def test_detail_is_relative_to_hr():
    hr, _ = random_pair(48, 48, 3)
    assert metrics.detail(hr, hr) == pytest.approx(1)
    assert metrics.detail(0.3 * hr + 40, hr) == pytest.approx(0.3)
    assert metrics.detail(np.full_like(hr, 7), hr) == 0
    assert np.isnan(metrics.detail(hr, np.full_like(hr, 7.0)))


@pytest.mark.parametrize("axis", [0, 1])
def test_seam_score_finds_steps_of_the_error_on_window_borders_only(axis):
    hr = np.zeros((64, 64))
    windows = np.arange(64) // 16
    error = np.random.default_rng(0).normal(0, 1, (64, 64))
    seam = np.expand_dims(20.0 * (windows % 2), 1 - axis)
    assert metrics.seam_score(hr + error, hr, 16) == pytest.approx(1, abs=0.15)
    assert metrics.seam_score(hr + error + seam, hr, 16) > 5
    assert metrics.seam_score(hr + error + np.roll(seam, 5, axis), hr, 16) < 1
    assert np.isnan(metrics.seam_score(hr + error, hr, 64))


def test_figures_of_tiny_images_are_missing_not_errors():
    tiny = np.ones((5, 9, 3))
    assert np.isnan(metrics.ssim(tiny, tiny, 1))
    assert np.isnan(metrics.detail(tiny[:2], tiny[:2]))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A torch home holding an AlexNet with random weights under the name of the real one."""
    return write_backbone(tmp_path_factory.mktemp("torch"))


def test_lpips_with_a_backbone(backbone, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(backbone.parents[2]))
    assert perceptual.default_backbone() == backbone
    distance = perceptual.load_lpips(backbone)
    a, b = (image / 127.5 - 1 for image in random_pair(64, 64, 3))
    assert distance(a, a) == 0
    assert 0 < distance(a, b) < distance(a, -a)
    assert distance(with_hole(a), a) == 0
    assert distance(a[..., 0], b[..., 0]) == distance(a[..., :1], b[..., :1]) > 0
    assert np.isnan(distance(a[:30], b[:30]))


def test_lpips_reads_the_weights_it_is_given(backbone, tmp_path):
    weights = torch.load(backbone, weights_only=True)
    weights["features.6.weight"] *= 2
    torch.save(weights, tmp_path / "other.pth")
    a, b = (image / 127.5 - 1 for image in random_pair(64, 64, 3))
    one, other = (perceptual.load_lpips(path) for path in (backbone, tmp_path / "other.pth"))
    assert one(a, b) != other(a, b)


def test_a_bad_backbone_is_one_clear_line(backbone, tmp_path):
    damaged, foreign = tmp_path / "damaged.pth", tmp_path / "foreign.pth"
    damaged.write_bytes(backbone.read_bytes()[:1000])
    torch.save({"weight": torch.zeros(3)}, foreign)
    for path, complaint in [(damaged, "not a readable weights file"),
                            (foreign, "expected torchvision's AlexNet"),
                            (tmp_path / "absent.pth", "found no file")]:
        with pytest.raises(CheckpointError, match=complaint) as caught:
            perceptual.load_lpips(path)
        assert "\n" not in str(caught.value) and perceptual.BACKBONE_URL in str(caught.value)
