"""Conformal risk control of masks: what is promised holds on images like the calibration's."""
import numpy as np
import pytest

from swinmpi.images.conformal import (
    FEWEST_TRUSTED,
    THRESHOLDS,
    TOLERANCES,
    controlled,
    fewest_images,
    losses_of_image,
)

TOLERANCE = TOLERANCES.index(10 / 255)


def drawn_image(rng, size_px: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """(spread, |error|) of an image that is as hard as it happens to be; its spread tells where it
    is wrong, but by an unknown factor of its own."""
    scale = np.exp(rng.normal(-4.0, 0.7, (size_px, size_px, 1)))
    error = np.abs(rng.normal(0, scale))
    return scale * np.exp(rng.normal(-0.5, 0.6)), error * np.exp(rng.normal(0, 0.5))


@pytest.mark.parametrize("risk, images", [(0.05, 24), (0.1, 12), (0.3, 6)])
def test_the_risk_holds_on_average_over_exchangeable_images(risk, images):
    rng, wrong, marked = np.random.default_rng(3), [], []
    for _ in range(600):
        losses = [losses_of_image(*drawn_image(rng))[0] for _ in range(images)]
        place = controlled(np.mean(losses, axis=0)[TOLERANCE], images, risk)
        spread, error = drawn_image(rng)
        trusted = spread <= (0 if place is None else THRESHOLDS[place])
        least = max(trusted.sum(), FEWEST_TRUSTED * trusted.size)
        wrong.append((trusted & (error > 10 / 255)).sum() / least)
        marked.append(trusted.mean())
    error_of_mean = np.std(wrong) / np.sqrt(len(wrong))
    assert np.mean(wrong) <= risk + 2 * error_of_mean
    assert np.mean(wrong) >= risk / 8 and np.mean(marked) > 0.05, "not by trusting nothing"


def test_more_risk_or_tolerance_never_marks_less():
    rng = np.random.default_rng(0)
    losses = np.mean([losses_of_image(*drawn_image(rng))[0] for _ in range(30)], axis=0)
    places = np.array([[-1 if place is None else place for place in
                        (controlled(of_one, 30, risk) for risk in np.linspace(0.01, 0.9, 30))]
                       for of_one in losses])
    assert (np.diff(places, axis=0) >= 0).all() and (np.diff(places, axis=1) >= 0).all()
    assert places.min() == -1 and places.max() == len(THRESHOLDS) - 1


def test_the_loss_is_the_share_of_wrong_pixels_among_the_trusted():
    spread, error = np.full((10, 10, 1), 0.01), np.zeros((10, 10, 1))
    error[:3] = 0.5
    losses, marked = losses_of_image(spread, error)
    some = np.array(THRESHOLDS) >= 0.01
    assert np.allclose(losses[:, some], 0.3) and not losses[:, ~some].any()
    assert (marked == some).all()


def test_the_loss_only_grows_with_the_threshold():
    spread, error = np.full((10, 10, 1), 0.5), np.zeros((10, 10, 1))
    spread[:2], error[:2] = 0.001, 0.3
    losses, _ = losses_of_image(spread, error)
    assert (np.diff(losses, axis=1) >= 0).all() and (losses[:, -1] == 1).all()


def test_a_pixel_counts_by_its_worst_channel_and_without_a_number_not_at_all():
    spread, error = np.full((4, 4, 3), 0.001), np.zeros((4, 4, 3))
    spread[0, 0, 1], error[0, 1, 2] = 0.3, 0.2
    spread[1], error[2] = np.nan, np.nan
    losses, marked = losses_of_image(spread, error)
    assert marked[0] == 0 and marked[-1] == 1 and marked[30] == 7 / 8
    assert losses[0, 30] == 1 / 7 and losses[0, -1] == 1 / 7, "the largest of any threshold below"


@pytest.mark.parametrize("risk, images", [(0.1, 9), (0.05, 19), (0.2, 4), (0.5, 1), (0.25, 3)])
def test_so_many_images_are_needed(risk, images):
    none_wrong = np.zeros(len(THRESHOLDS))
    assert fewest_images(risk) == images
    assert controlled(none_wrong, images, risk) == len(THRESHOLDS) - 1
    assert controlled(none_wrong, images - 1, risk) is None
