"""The `aligned` family: shapes and sizes, what an encoder sees, the encoder in blocks,
and the moving average."""
import pytest
import torch
from torch import nn
from torch.nn import functional

from swinmpi.config import AlignedModel
from swinmpi.errors import CheckpointError
from swinmpi.families.aligned import Aligned
from swinmpi.families.encoding import lr_blocks
from swinmpi.families.family import Encoding
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.aligned_encoder import AlignedEncoder
from swinmpi.models.aligned_unet import joined_and_unshuffled
from swinmpi.models.blocks import count_parameters
from swinmpi.models.diffuser import prepare
from swinmpi.models.ema import Ema
from swinmpi.parallel.comm import Group
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.storage.checkpoint import load_into, load_weights, save_weights
from swinmpi.windows.frames import cut_at
from swinmpi.windows.grid import WindowGrid, window_origin

SMALL = {"window_px": 16, "encoder_channels": 8, "encoder_blocks": 2, "feature_channels": 4,
         "global_channels": 8, "unet_channels": [8, 16], "attention_heads": 2}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**changes) -> AlignedModel:
    return AlignedModel(**SMALL | changes)


def test_the_default_size():
    with torch.device("meta"):
        model = Aligned(AlignedModel()).model
    assert count_parameters(model.unet) == pytest.approx(1.28e6, rel=0.01)
    assert count_parameters(model.encoder) == pytest.approx(0.39e6, rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shapes(scale, channels):
    config = small(scale=scale, channels=channels)
    model = Aligned(config).model
    features, global_vector = model.encoder(torch.randn(2, channels, 9, 7))
    assert (features.shape == (2, 4 + channels, 9 * scale, 7 * scale)
            and global_vector.shape == (2, 8))
    for window_px in (16, 24):
        x_t = torch.randn(2, channels, window_px, window_px)
        seen = torch.randn(2, 4 + channels, window_px, window_px)
        border = torch.rand(2, 1, window_px, window_px)
        assert (model.unet(x_t, torch.tensor([0, 999]), seen, border, global_vector).shape
                == x_t.shape)


@torch.no_grad()
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_the_unet_sees_all_it_is_told(levels):
    unet = Aligned(small(window_px=32, unet_channels=[8, 16, 16, 24][:levels],
                         unet_blocks=2)).model.unet.eval()
    for parameter in unet.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    told = [torch.randn(3, 3, 32, 32), torch.tensor([1, 50, 900]), torch.randn(3, 7, 32, 32),
            torch.rand(3, 1, 32, 32), torch.randn(3, 8)]
    answer = unet(*told)
    for place, other in enumerate(told):
        changed = unet(*told[:place], other + 1, *told[place + 1:])
        assert not torch.allclose(changed, answer, atol=1e-4), place
    alone = unet(*(part[1:2] for part in told))
    assert torch.allclose(alone, answer[1:2], atol=1e-5)


@torch.no_grad()
def test_an_untrained_unet_predicts_nothing():
    unet = Aligned(small()).model.unet
    told = (torch.randn(1, 3, 16, 16), torch.tensor([5]), torch.randn(1, 7, 16, 16),
            torch.rand(1, 1, 16, 16), torch.randn(1, 8))
    assert not unet(*told).any()


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_radius_is_as_far_as_a_pixel_is_seen(blocks):
    encoder = AlignedEncoder(small(encoder_blocks=blocks)).double()
    assert encoder.radius_px == 2 * blocks + 3
    lr = torch.randn(1, 3, 41, 41, dtype=torch.float64)
    poked = lr.clone()
    poked[..., 20, 20] += 100
    changed = (encoder(poked)[0] != encoder(lr)[0])[0].any(0)
    rows = changed.any(1).nonzero().flatten() // 2
    cols = changed.any(0).nonzero().flatten() // 2
    for seen in (rows, cols):
        assert (seen.min(), seen.max()) == (20 - encoder.radius_px, 20 + encoder.radius_px)


@torch.no_grad()
@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("sizes",
                         [[(1, 1)], [(5, 7), (5, 7)], [(128, 129)], [(300, 40)], [(131, 260)]])
def test_the_encoder_in_blocks_is_the_encoder(sizes, scale):
    family = Aligned(small(scale=scale))
    model = family.model.eval()
    images = [torch.randn(3, *size) for size in sizes]
    height, width = (side * scale for side in sizes[0])
    ownership = Ownership(WindowGrid(height, width, 16, 4), 1, 0)
    residuals = [torch.zeros(3, height, width) for _ in images]
    encoding = Encoding(ownership, PieceExchange(Group()), torch.device("cpu"), "fp32", 4, True)
    conditions = family.conditions([LrRows.whole(image) for image in images], encoding, residuals)
    for image, condition, residual in zip(images, conditions, residuals, strict=True):
        whole, whole_vector = model.encoder(image[None])
        features = condition.features[0].view(range(height), range(width))
        assert features.shape == whole.shape[1:] and features.dtype == torch.float32
        assert torch.allclose(features, whole[0], atol=1e-5) and residual.equal(features[-3:])
        assert torch.allclose(condition.global_vector, whole_vector[0], atol=1e-5)
        for position in ownership.positions:
            seen = condition.inputs((4, 1), [position])[0][0]
            origin = window_origin(ownership.grid, (4, 1), position)
            cut = cut_at(features, *origin, ownership.grid.window_px, ownership.grid.border)
            assert seen.equal(cut), "also what is mirrored outside"


def test_blocks_cover_every_pixel_once():
    for height, width in ((1, 1), (128, 128), (129, 400), (300, 17)):
        covered = torch.zeros(height, width)
        for rows, cols in lr_blocks(height, width):
            covered[rows.start:rows.stop, cols.start:cols.stop] += 1
        assert (covered == 1).all()


def test_training_reaches_every_parameter():
    model = Aligned(small()).model
    nn.init.normal_(model.unet.exit.weight)
    for block in model.unet.modules():
        if hasattr(block, "modulate"):
            nn.init.normal_(block.modulate.weight, std=0.1)
    features, global_vector = model.encoder(torch.randn(2, 3, 8, 8))
    output = model.unet(torch.randn(2, 3, 16, 16), torch.tensor([3, 40]), features,
                        torch.rand(2, 1, 16, 16), global_vector)
    output.square().mean().backward()
    assert [name for name, value in model.named_parameters()
            if value.grad is None or not value.grad.any()] == []


@torch.no_grad()
def test_bf16_and_channels_last_stay_close():
    cpu = torch.device("cpu")
    model = prepare(Aligned(small()).model, cpu, channels_last=True, fused_attention=True)
    for parameter in model.unet.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    told = [torch.randn(2, 3, 16, 16), torch.tensor([3, 40]), torch.randn(2, 7, 16, 16),
            torch.rand(2, 1, 16, 16), torch.randn(2, 8)]
    reference = model.unet(*told)
    plain = prepare(model, cpu, channels_last=False, fused_attention=False)
    assert torch.allclose(plain.unet(*told), reference, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model.unet(*told) - reference).abs().max() < 0.1 * reference.abs().max()


@torch.no_grad()
def test_the_average_in_closed_form():
    mu, module = 0.9, nn.Linear(3, 2)
    history = [module.weight.clone()]
    ema = Ema(module, mu, ramp=False)
    for update in range(5):
        module.weight.normal_()
        history.append(module.weight.clone())
        ema.update(module, update)
    # Equation 2.1 unrolled: theta_0 counts mu^n, theta_k counts (1 - mu) mu^(n - k).
    expected = mu**5 * history[0] + sum((1 - mu) * mu ** (5 - k) * history[k] for k in range(1, 6))
    assert torch.allclose(ema.tensors["weight"], expected, atol=1e-6)
    assert torch.allclose(ema.tensors["bias"], module.bias, atol=1e-6)


@torch.no_grad()
def test_the_ramp_starts_with_a_short_average():
    module = nn.Linear(1, 1, bias=False)
    module.weight.zero_()
    ema, expected = Ema(module, 0.4, ramp=True), 0.0
    for update in range(8):
        module.weight.fill_(update + 1.0)
        mu = min(0.4, (1 + update) / (10 + update))
        expected = (1 - mu) * (update + 1) + mu * expected
        ema.update(module, update)
        assert ema.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)
    assert (1 + update) / (10 + update) > 0.4


def test_a_checkpoint_gives_the_model_back(tmp_path):
    model, other = Aligned(small()).model, Aligned(small()).model
    header = {"model": small().model_dump(), "update": 3}
    save_weights(tmp_path / "model.safetensors",
                 model.to(memory_format=torch.channels_last).state_dict(), header)
    weights, came = load_weights(tmp_path / "model.safetensors")
    load_into(other, weights, "model.safetensors")
    assert came == header and AlignedModel(**came["model"]) == small()
    assert all(
        torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    larger = Aligned(small(encoder_channels=16)).model
    with pytest.raises(CheckpointError,
                       match=r"encoder.body.0.conv1.bias should be \(16,\), is \(8,\)"):
        load_into(larger, weights, "model.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder.body.1.bias should be \(8,\), is absent"):
        load_into(Aligned(small(encoder_blocks=1)).model, weights, "model.safetensors")


def test_joining_and_unshuffling_at_once_is_one_after_the_other():
    cut = torch.rand(2, 5, 12, 8)
    images = [torch.rand(2, 3, 12, 8), cut[:, :-1], cut[:, -1:]]
    made = joined_and_unshuffled(images)
    assert torch.equal(made, functional.pixel_unshuffle(torch.cat(images, dim=1), 2))
    assert made.is_contiguous()
