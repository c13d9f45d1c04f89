"""The family `thesis` is the published network: its sizes, and its answers with its weights."""
import pytest
import torch

from swinmpi.config import ThesisModel
from swinmpi.errors import CheckpointError
from swinmpi.families.thesis import Thesis
from swinmpi.models.blocks import count_parameters, dropped_out
from swinmpi.models.published_names import from_published
from swinmpi.models.thesis_unet import ThesisUNet
from swinmpi.windows.grid import WindowGrid
from tests.support.published import answers, layout, weights


def count_of(names, start: str) -> int:
    return sum(torch.Size(shape).numel() for name, shape in names.items() if name.startswith(start))


def test_published_numbers_of_parameters():
    with torch.device("meta"):
        model = Thesis(ThesisModel()).model
    projection = count_parameters(model.encoder.project)
    assert projection == count_of(layout(2), "condition_proj") == 202_880
    assert (count_parameters(model.encoder) - projection
            == count_of(layout(2), "extract_condition") == 3_351_395)
    assert count_parameters(model.unet) == 23_334_531
    assert count_parameters(model) == count_of(layout(2), "") == 26_888_806


@torch.no_grad()
@pytest.mark.parametrize("scale", [2, 4])
def test_converted_weights_give_the_published_answers(scale):
    config, told = ThesisModel(scale=scale), answers(scale)
    model = Thesis(config).model.eval()
    model.load_state_dict(from_published(weights(scale), config, "weights"))
    features = model.encoder(told["condition"])
    answer = model.unet(told["x"], told["t"], features)
    assert (answer - told["output"]).abs().max() < 1e-5
    alone = model.unet(told["x"], told["t"])
    assert (alone - told["unconditional"]).abs().max() < 1e-5


def test_weights_of_an_unconditional_network_and_of_ddp_fit():
    config = ThesisModel(encoder="none")
    told = {f"module.{name}": value.half() for name, value in weights(2).items()
            if not name.startswith(("extract_condition", "condition_proj"))}
    made = from_published(told, config, "weights")
    assert made["unet.entry.0.weight"].dtype == torch.float32
    assert torch.equal(made["unet.exit.bias"], told["module.out_conv.bias"].float())


@pytest.mark.parametrize(("change", "settings", "message"), [
    (lambda told: told.pop("sa3.ln.bias"), {}, "lacks sa3.ln.bias"),
    (lambda told: told.update(more=torch.zeros(1)), {}, "also holds more"),
    (lambda told: None, {"scale": 4}, "lacks condition_proj.4.bias"),
    (lambda told: None, {"rrdb_blocks": 7}, "also holds extract_condition.RRDB_trunk.7"),
    (lambda told: None, {"rrdb_growth": 16}, "expected shape"),
    (lambda told: None, {"channels": 1}, "expected shape"),
    (lambda told: told.update({"out_conv.bias": torch.zeros(4)}), {},
     r"out_conv.bias: expected shape \(3,\), got \(4,\)"),
    (lambda told: told.update({"out_conv.bias": torch.full((3,), torch.nan)}), {}, "not finite"),
])
def test_weights_that_do_not_fit_are_refused(change, settings, message):
    told = weights(2)
    change(told)
    with pytest.raises(CheckpointError, match=message):
        from_published(told, ThesisModel(**settings), "weights")


def test_mask_is_centred_on_half_a_window_as_published():
    grid = WindowGrid(64, 64, 32, 8, "wrap")
    for layers, centre in (("published", 16), ("text", 15.5)):
        with torch.device("meta"):
            family = Thesis(ThesisModel(layers=layers, scale=4, window_px=32))
        at = torch.arange(64, dtype=torch.float64)
        drawn = torch.exp(-((at - 32 - centre) ** 2) / (2 * 24.0**2))
        drawn = torch.roll(drawn / drawn.max(), -8)
        pooled = (drawn[:, None] * torch.roll(drawn, 8)).view(32, 2, 32, 2).mean((1, 3)) * 2 - 1
        mask, = family.masks(grid, (8, 0), [3])
        torch.testing.assert_close(mask[0], pooled.float(), atol=1e-6, rtol=0)


def test_dropout_is_of_training_alone_and_keeps_the_mean():
    torch.manual_seed(0)
    small = ThesisModel(unet_channels=[8, 8, 8, 8], bottleneck_channels=8, encoder="none",
                        dropout=0.5)
    unet, x, t = ThesisUNet(small), torch.randn(2, 3, 32, 32), torch.tensor([3, 70])
    torch.nn.init.normal_(unet.exit.weight)
    assert not torch.equal(unet(x, t), unet(x, t))
    assert torch.equal(unet.eval()(x, t), unet(x, t))
    dropped = dropped_out(torch.ones(400, 400), 0.1)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]
