"""The objectives against algorithm 2.1 written out, and what they do not depend on."""
import pytest
import torch
from swinmpi.families.condition import AlignedCondition, ThesisCondition
from swinmpi.families.objective import BORDER_REACH_PX, cut, make_objective
from torch.nn import functional

from swinmpi.diffusion.process import q_sample, v_target
from swinmpi.images.imresize import imresize_tensor
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.windows.frames import patchify
from swinmpi.windows.grid import WindowGrid, source_index
from swinmpi.windows.masks import border_distance_at, gaussian_masks
from swinmpi.windows.moves import blocks_of
from tests.support.training import ALIGNED, THESIS, tiny, write_pairs


def prepared(tmp_path, *overrides, model):
    """(objective with every parameter moved off its initial value, one batch)."""
    config = tiny(write_pairs(tmp_path / "pairs.h5"), tmp_path, *overrides, model=model)
    with PairReader(config.train.data) as pairs:
        batch = BatchSource(config, pairs, 0, 1).batch(0, 0)
    torch.manual_seed(0)
    objective = make_objective(config)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return objective, batch


@pytest.mark.filterwarnings("ignore:schedule thesis64")
def test_the_thesis_objective_is_algorithm_2_1(tmp_path):
    objective, batch = prepared(tmp_path, "train.batch=image", "diffusion.prediction=eps", "diffusion.schedule=thesis64",
                                "diffusion.steps=100", "sampler.shift.max_px=4", model=THESIS)
    losses = []
    for lr, hr, eps, windows, t in zip(batch.lr, batch.hr, batch.eps, batch.windows, batch.t.split(4), strict=True):
        shift = windows[0].shift
        x_0 = ((hr[None] - imresize_tensor(lr[None], scale=2)) * 2).clamp(-1, 1)
        x_t = q_sample(x_0, t[:1], eps[None], objective.schedule)
        x_patch, eps_patch = (patchify(torch.roll(image, shift, (-2, -1)), 16)[0] for image in (x_t, eps[None]))
        masks = gaussian_masks(WindowGrid(32, 32, 16, 4, "wrap"), shift, range(4), 1.5, 16, 16)
        condition = torch.cat([lr.expand(4, -1, -1, -1), masks], dim=1)
        predicted = objective.model.unet(x_patch, t, objective.model.encoder(condition))
        losses.append(functional.l1_loss(predicted, eps_patch))
    assert len({windows[0].shift for windows in batch.windows}) > 1
    assert torch.allclose(objective(batch)["loss"], torch.stack(losses).mean(), atol=1e-6)


def test_the_aligned_objective_written_out(tmp_path):
    objective, batch = prepared(tmp_path, "train.regression_weight=3.0", model=ALIGNED)
    assert any(min(window.origin) < 0 or max(window.origin) > 16 for windows in batch.windows for window in windows)
    model, losses, regressions = objective.model, [], []
    times = iter(batch.t)
    for lr, hr, eps, windows in zip(batch.lr, batch.hr, batch.eps, batch.windows, strict=True):
        features, global_vector = model.encoder(lr[None])
        regression = imresize_tensor(lr[None], scale=2) + features[:, -3:]
        regressions.append(functional.l1_loss(regression, hr[None]))
        for window in windows:
            y, x = (side + 8 for side in window.origin)
            x_0, noise, seen = (functional.pad(image, (8, 8, 8, 8), mode="reflect")[..., y:y + 16, x:x + 16]
                                for image in ((hr - regression) * 16, eps[None], features))
            t = next(times)[None]
            border = border_distance_at(*window.origin, 16, 32, 32, BORDER_REACH_PX)[None]
            x_t = q_sample(x_0, t, noise, objective.schedule)
            predicted = model.unet(x_t, t, seen, border, global_vector)
            losses.append(functional.l1_loss(predicted, v_target(x_0, noise, t, objective.schedule)))
    wanted = torch.stack(losses).mean() + 3 * torch.stack(regressions).mean()
    assert torch.allclose(objective(batch)["loss"], wanted, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("border", ["reflect", "wrap"])
def test_windows_are_told_in_training_what_they_are_told_in_sampling(tmp_path, border):
    objective, batch = prepared(tmp_path, "train.batch=image", f"sampler.shift.border={border}", model=ALIGNED)
    features, global_vector = objective.model.encoder(batch.lr)
    told, grid = [], WindowGrid(32, 32, 16, 4, border)
    whole, = blocks_of(range(grid.num_positions), grid)
    area = whole.canvas(grid)
    rows, cols = (source_index(line.start, len(line), 32, 16, border) for line in (area.rows, area.cols))
    for image, vector, windows in zip(features, global_vector, batch.windows, strict=True):
        condition = AlignedCondition(grid, [whole], len(image), torch.device("cpu"))
        condition.features[0].values[:], condition.global_vector = image[:, rows[:, None], cols], vector
        told += [condition.inputs(window.shift, window.position) for window in windows]
    seen, borders, _ = (torch.stack(parts) for parts in zip(*told, strict=True))
    assert torch.equal(cut(features, batch.windows, 16, border), seen)
    assert torch.equal(objective.borders(batch), borders)


@torch.no_grad()
@pytest.mark.parametrize("condition_on", ["lr", "lr+x_t", "x_t"])
def test_the_thesis_encoder_sees_in_training_what_it_sees_in_sampling(tmp_path, condition_on):
    objective, batch = prepared(tmp_path, "train.batch=image", f"model.condition_on={condition_on}", model=THESIS)
    x_t = torch.randn_like(batch.hr)
    features = objective.features(batch, x_t).split(4)
    for lr, noisy, windows, seen in zip(batch.lr, x_t, batch.windows, features, strict=True):
        condition = ThesisCondition(objective.config, objective.model, lr, objective.grid, micro_batch=4)
        condition.prepare(windows[0].shift, range(4), lambda noisy=noisy: noisy)
        told = [condition.inputs(window.shift, window.position)[0] for window in windows]
        assert torch.allclose(torch.stack(told), seen, atol=1e-5)


def test_the_regression_answers_to_its_own_loss_only(tmp_path):
    objective, batch = prepared(tmp_path, "train.regression_weight=0.0", model=ALIGNED)
    objective(batch)["loss"].backward()
    tail = objective.model.encoder.tail
    # pixel_shuffle takes 4 rows of the weights for each channel; the residual's come last.
    assert not tail.weight.grad[-12:].any() and tail.weight.grad[:-12].any()


def test_synthesis_does_not_look_at_the_lr_image(tmp_path):
    objective, batch = prepared(tmp_path, "model.condition_on=x_t", "train.batch=image", model=THESIS)
    loss = objective(batch)["loss"]
    batch.lr = torch.randn_like(batch.lr)
    assert torch.equal(objective(batch)["loss"], loss)


@pytest.mark.parametrize("model", [ALIGNED, THESIS], ids=["aligned", "thesis"])
def test_an_encoder_trained_alone_regresses_hr(tmp_path, model):
    objective, batch = prepared(tmp_path, "train.target=encoder", model=model)
    regressed = imresize_tensor(batch.lr, scale=2) + objective.residual(batch.lr)
    assert torch.equal(objective(batch)["loss"], functional.l1_loss(regressed, batch.hr))
