"""The transformer that sees whole images: any size, within its memory, the same for any ranks."""
import math

import pytest
import torch
from torch.nn import functional

from swinmpi.config import AlignedModel, load_config
from swinmpi.errors import ConfigError
from swinmpi.families.aligned import Aligned
from swinmpi.families.encoding import halved_together, lr_blocks, share_of
from swinmpi.families.family import Encoding
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.vit import ImageTransformer, halved, weights
from swinmpi.parallel.comm import Group
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.windows.grid import WindowGrid
from tests.support.simulated import on_ranks
from tests.support.training import ALIGNED, THESIS, VIT


def made(*overrides):
    """A small transformer, none of its weights zero."""
    torch.manual_seed(0)
    transformer = ImageTransformer(load_config(overrides=[*ALIGNED, *VIT, *overrides]).model, 6, 5)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return transformer.eval()


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (17, 9), (16, 24), (1, 900)])
def test_any_size_within_the_tokens(size, channels):
    transformer = made(f"model.channels={channels}", "model.vit_tokens=16")
    lr = torch.rand(2, channels, *size) - 0.5
    for joins in ((False, False), (True, False), (True, True)):
        overview = transformer.of(lr, joins)
        assert overview.vector.shape == (2, 5) and overview.patches.shape[:2] == (2, 6)
        assert math.prod(overview.patches.shape[2:]) <= 16
        under = overview.beneath(*map(range, size))
        assert under.shape == (2, 6, *size) and under.isfinite().all()
        torch.testing.assert_close(transformer.of(lr[1:], joins).vector, overview.vector[1:])


@torch.no_grad()
def test_every_pixel_is_seen_everywhere():
    transformer, lr = made("model.vit_tokens=16"), torch.rand(1, 3, 37, 21) - 0.5
    before = transformer.of(lr)
    for y, x in ((0, 0), (36, 0), (18, 20)):
        poked = lr.clone()
        poked[..., y, x] += 1
        after = transformer.of(poked)
        changed = (after.patches - before.patches).abs().amax(1)
        assert (after.vector != before.vector).any() and (changed > 1e-6).all()


def test_patches_are_interpolated_linearly_between_their_centres():
    values = torch.rand(1, 2, 3, 4, dtype=torch.float64)
    down, across = weights(torch.arange(24), 3, 8, 24, False), weights(torch.arange(32), 4, 8, 32,
                                                                      False)
    wanted = functional.interpolate(values, scale_factor=8, mode="bilinear", align_corners=False)
    torch.testing.assert_close(down @ values @ across.T, wanted)


@pytest.mark.parametrize("size", [1, 17, 20, 24])
def test_interpolation_comes_round_where_edges_join(size):
    count, inside = -(-size // 8), torch.arange(size)
    told = weights(inside, count, 8, size, True)
    torch.testing.assert_close(told.sum(-1), torch.ones(size, dtype=torch.float64))
    assert told.min() >= 0
    for turns in (-2, 1):
        assert weights(inside + turns * size, count, 8, size, True).equal(told)
    around = told.roll(-1, 0) - told
    assert around.abs().max() <= 1 / min(8, max(1, size - 8 * (count - 1))) + 1e-9, "no jump"


@pytest.mark.parametrize(("size", "times", "num_ranks"), [((300, 140), 3, 3), ((2, 2000), 9, 2)])
def test_ranks_halve_an_image_together(size, times, num_ranks):
    """Bits, of more blocks than ranks, also where a block is less than a pixel."""
    images = [torch.rand(3, *size) for _ in range(2)]
    blocks = lr_blocks(*size)
    shares = [share_of(2, blocks, num_ranks, rank) for rank in range(num_ranks)]
    of_ranks = on_ranks(num_ranks, lambda group: halved_together(
        [LrRows.whole(image) for image in images], times, shares, group))
    for smalls in of_ranks:
        for image, small in zip(images, smalls, strict=True):
            assert small.equal(halved(image[None], times)[0])


@torch.no_grad()
def test_an_encoder_with_it_in_blocks_is_the_encoder():
    torch.manual_seed(0)
    family = Aligned(load_config(overrides=[*ALIGNED, *VIT, "model.vit_tokens=64"]).model)
    torch.nn.init.normal_(family.model.encoder.transformer.to_patches.weight)
    images = [torch.randn(3, 131, 140) for _ in range(2)]
    ownership = Ownership(WindowGrid(262, 280, 16, 4), 1, 0)
    encoding = Encoding(ownership, PieceExchange(Group()), torch.device("cpu"), "fp32", 4, True)
    conditions = family.conditions([LrRows.whole(image) for image in images], encoding, None)
    for image, condition in zip(images, conditions, strict=True):
        features, vector = family.model.eval().encoder(image[None])
        torch.testing.assert_close(condition.features[0].view(range(262), range(280)), features[0],
                                   rtol=0, atol=1e-4)
        torch.testing.assert_close(condition.global_vector, vector[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("settings", "line"), [
    ([*ALIGNED, *VIT, "model.vit_heads=3"], "model: expected vit_heads that divide vit_channels"),
    ([*THESIS, *VIT, "model.condition_on=x_t"], "model: expected condition_on lr or lr+x_t with"),
    ([*ALIGNED, "model.vit_channels=10"], "model.vit_channels: expected a multiple of 4, got 10"),
    ([*ALIGNED, "model.encoder=rrdb"], "model.encoder: expected 'conv' or 'vit', got 'rrdb'"),
])
def test_what_cannot_be_is_told_in_one_line(settings, line):
    with pytest.raises(ConfigError) as told:
        load_config(overrides=settings)
    assert line in str(told.value) and "\n" not in str(told.value)


def test_a_model_without_one_says_nothing_of_it():
    """Checkpoints and experiments of before stay what they are."""
    def said(*overrides):
        model = load_config(overrides=overrides).model
        return {name for name in model.model_dump(exclude=model.unsaid)
                if name == "encoder" or name.startswith("vit_")}

    assert said() == set() and said(*THESIS) == {"encoder"}
    assert len(said(*VIT)) == len(said(*THESIS, *VIT)) == 6
    assert AlignedModel().encoder == "conv"
