"""The objectives against algorithm 2.1 written out, and what they do not depend on."""
import pytest
import torch
from torch.nn import functional

from swinmpi.diffusion.process import q_sample, v_target
from swinmpi.families.aligned import BORDER_REACH_PX, AlignedCondition
from swinmpi.families.family import Encoding, cut
from swinmpi.families.thesis import ThesisCondition
from swinmpi.images.imresize import imresize_tensor
from swinmpi.parallel.comm import Group
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.training.objective import make_training_module
from swinmpi.windows.frames import patchify
from swinmpi.windows.grid import WindowGrid, source_index
from swinmpi.windows.masks import GaussianMask, border_distance_at, masks_of
from swinmpi.windows.moves import blocks_of
from swinmpi.windows.places import border_distances
from swinmpi.windows.shift import crop_shift
from tests.support.training import ALIGNED, THESIS, tiny, write_pairs


def prepared(tmp_path, *overrides, model):
    """(training module with every parameter moved off its initial value, one batch)."""
    config = tiny(write_pairs(tmp_path / "pairs.h5"), tmp_path, *overrides, model=model)
    torch.manual_seed(0)
    module = make_training_module(config)
    with PairReader(config.train.data) as pairs:
        batch = BatchSource(config, module.family, pairs, 0, 1).batch(0, 0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module, batch


@pytest.mark.filterwarnings("ignore:schedule thesis64")
@pytest.mark.parametrize("edge", ["roll", "crop_pad", "crop_resize"])
@pytest.mark.parametrize("layers", ["published", "text"])
@pytest.mark.parametrize("loss", ["l1", "smooth_l1"])
def test_the_thesis_objective_is_algorithm_2_1(tmp_path, layers, edge, loss):
    module, batch = prepared(tmp_path, "train.batch=image", "diffusion.prediction=eps",
                             "diffusion.schedule=thesis64", "diffusion.steps=100",
                             "sampler.shift.max_px=4", f"sampler.shift.edge={edge}",
                             f"model.layers={layers}", "model.dropout=0", f"train.loss={loss}",
                             model=THESIS)
    distance = {"l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss}[loss]
    mask = GaussianMask(1.5, 8 if layers == "published" else 7.5)
    losses = []
    for lr, hr, eps, windows, t in zip(batch.lr, batch.hr, batch.eps, batch.windows,
                                       batch.t.split(4), strict=True):
        shift = windows[0].shift
        x_0 = ((hr[None] - imresize_tensor(lr[None], scale=2)) * 2).clamp(-1, 1)
        x_t = q_sample(x_0, t[:1], eps[None], module.objective.path)
        def frame(image, shift=shift):
            if edge == "roll":
                return torch.roll(image, shift, (-2, -1))
            return crop_shift(image, (-shift[0], -shift[1]), edge.removeprefix("crop_"))

        x_patch, eps_patch = (patchify(frame(image), 16)[0] for image in (x_t, eps[None]))
        masks = masks_of(mask, WindowGrid(32, 32, 16, 4, "wrap"), shift, range(4), (16, 16))
        condition = torch.cat([lr.expand(4, -1, -1, -1), masks], dim=1)
        predicted = module.model.unet(x_patch, t, module.model.encoder(condition))
        losses.append(distance(predicted, eps_patch))
    assert len({windows[0].shift for windows in batch.windows}) > 1
    assert torch.allclose(module(batch)["loss"], torch.stack(losses).mean(), atol=1e-6)


def test_the_aligned_objective_written_out(tmp_path):
    module, batch = prepared(tmp_path, "train.regression_weight=3.0", model=ALIGNED)
    assert any(min(window.origin) < 0 or max(window.origin) > 16 for windows in batch.windows
               for window in windows)
    model, losses, regressions = module.model, [], []
    times = iter(batch.t)
    for lr, hr, eps, windows in zip(batch.lr, batch.hr, batch.eps, batch.windows, strict=True):
        features, global_vector = model.encoder(lr[None])
        regression = imresize_tensor(lr[None], scale=2) + features[:, -3:]
        regressions.append(functional.l1_loss(regression, hr[None]))
        for window in windows:
            y, x = (side + 8 for side in window.origin)
            x_0, noise, seen = (
                functional.pad(image, (8, 8, 8, 8), mode="reflect")[..., y:y + 16, x:x + 16]
                for image in ((hr - regression) * 16, eps[None], features))
            t = next(times)[None]
            border = border_distance_at(*window.origin, 16, 32, 32, BORDER_REACH_PX)[None]
            x_t = q_sample(x_0, t, noise, module.objective.path)
            predicted = model.unet(x_t, t, seen, border, global_vector)
            losses.append(functional.l1_loss(predicted,
                                             v_target(x_0, noise, t, module.objective.path)))
    wanted = torch.stack(losses).mean() + 3 * torch.stack(regressions).mean()
    assert torch.allclose(module(batch)["loss"], wanted, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("border", ["reflect", "wrap"])
def test_windows_are_told_in_training_what_they_are_told_in_sampling(tmp_path, border):
    module, batch = prepared(tmp_path, "train.batch=image", f"sampler.shift.border={border}",
                             model=ALIGNED)
    features, global_vector = module.model.encoder(batch.lr)
    told, grid = [], WindowGrid(32, 32, 16, 4, border)
    whole, = blocks_of(range(grid.num_positions), grid)
    rect = whole.canvas(grid)
    rows, cols = (source_index(line.start, len(line), 32, 16, border)
                  for line in (rect.rows, rect.cols))
    for image, vector, windows in zip(features, global_vector, batch.windows, strict=True):
        condition = AlignedCondition(Ownership(grid, 1, 0), len(image), 3, torch.device("cpu"))
        condition.features[0].values[:], condition.global_vector = (image[:, rows[:, None], cols],
                                                                    vector)
        told.append(condition.inputs(windows[0].shift, [window.position for window in windows]))
    seen, borders, _ = (torch.cat(parts) for parts in zip(*told, strict=True))
    assert torch.equal(cut(features, batch.windows, 16, border), seen)
    told_in_training = border_distances(batch.places[:, 1:], module.objective.grid,
                                        BORDER_REACH_PX)
    assert torch.equal(told_in_training, borders)


@torch.no_grad()
@pytest.mark.parametrize("condition_on", ["lr", "lr+x_t", "x_t"])
def test_the_thesis_encoder_sees_in_training_what_it_sees_in_sampling(tmp_path, condition_on):
    module, batch = prepared(tmp_path, "train.batch=image", f"model.condition_on={condition_on}",
                             model=THESIS)
    x_t = torch.randn_like(batch.hr)
    family, grid = module.family, module.objective.grid
    features = family.told(batch, x_t, grid)[0].split(4)
    encoding = Encoding(Ownership(grid, 1, 0), PieceExchange(Group()), torch.device("cpu"), "fp32",
                        4, True)
    for lr, noisy, windows, seen in zip(batch.lr, x_t, batch.windows, features, strict=True):
        condition = ThesisCondition(family, lr, encoding, encoding.ownership.positions)
        condition.prepare(windows[0].shift, range(4), lambda noisy=noisy: noisy)
        told, = condition.inputs(windows[0].shift, [window.position for window in windows])
        assert torch.allclose(told, seen, atol=1e-5)


def test_the_regression_answers_to_its_own_loss_only(tmp_path):
    module, batch = prepared(tmp_path, "train.regression_weight=0.0", model=ALIGNED)
    module(batch)["loss"].backward()
    tail = module.model.encoder.tail
    # pixel_shuffle takes 4 rows of the weights for each channel; the residual's come last.
    assert not tail.weight.grad[-12:].any() and tail.weight.grad[:-12].any()


def test_synthesis_does_not_look_at_the_lr_image(tmp_path):
    module, batch = prepared(tmp_path, "model.condition_on=x_t", "train.batch=image",
                             "model.dropout=0", model=THESIS)
    loss = module(batch)["loss"]
    batch.lr = torch.randn_like(batch.lr)
    assert torch.equal(module(batch)["loss"], loss)


@pytest.mark.parametrize("model", [ALIGNED, THESIS], ids=["aligned", "thesis"])
def test_an_encoder_trained_alone_regresses_hr(tmp_path, model):
    module, batch = prepared(tmp_path, "train.target=encoder", model=model)
    regressed = imresize_tensor(batch.lr, scale=2) + module.family.residual(batch.lr)
    assert torch.equal(module(batch)["loss"], functional.l1_loss(regressed, batch.hr))
