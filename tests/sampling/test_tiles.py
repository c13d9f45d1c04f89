"""A texture that tiles: with border wrap and whole windows nothing of it has an edge, whatever the
exchange and the number of ranks."""
import pytest
import torch

from swinmpi.config import SamplerConfig, load_config
from swinmpi.config.sections import DiffusionConfig
from swinmpi.families.aligned import Aligned
from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize_part, imresize_tensor, part_needed
from swinmpi.images.lr_rows import LrRows
from swinmpi.parallel.comm import Group
from swinmpi.parallel.device import Computing
from swinmpi.sampling.process import make_process
from swinmpi.sampling.superresolve import EXCHANGES, SuperResolver
from tests.support.simulated import on_ranks
from tests.support.training import ALIGNED, LATENT, THESIS, VIT, WAVELET

HEIGHT, WIDTH, WINDOW_LR = 32, 40, 8


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def texture(height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """(3, height, width) in -1..1: random waves, each a whole number of times over the image."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    waves = torch.zeros(3, height, width)
    for _ in range(12):
        down, across = torch.randint(-5, 6, (2,), generator=generator)
        phase = torch.rand(3, generator=generator)[:, None, None]
        waves += torch.sin(2 * torch.pi * (down * y + across * x + phase))
    return waves / waves.abs().max()


def family_of(model: list[str], target: str = "diffuser"):
    torch.manual_seed(0)
    made = make_family(load_config(overrides=model).model, target == "diffuser")
    for parameter in made.model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    made.model.eval()
    return made


def super_resolved(image: torch.Tensor, border: str = "wrap", exchange: str = "root",
                   noise_scale: float = 0.0, family=None, num_ranks: int = 1) -> torch.Tensor:
    """(2, 3, 2 h, 2 w): the sample and its base."""
    with torch.random.fork_rng():
        family = family or family_of(ALIGNED)
    config = SamplerConfig(steps=4, noise_scale=noise_scale, shift={"border": border})
    size = image.shape[-2:]

    def on_rank(group: Group) -> list:
        process = make_process(config, DiffusionConfig(steps=50), family.config.window_px)
        resolver = SuperResolver(family, process, Computing("cpu", micro_batch=2),
                                 EXCHANGES[exchange], group)
        rows = range(size[0])
        if resolver.reads_parts(*size):
            rows, = resolver.lr_rows(*size, 1)
        lr = [LrRows(image[:, rows.start:rows.stop].clone(), rows.start, size[0])]
        parts = []
        for part in resolver(lr, [0], [0]):
            inside = [slice(line.start - seen.start, line.stop - seen.start) for line, seen
                      in zip((part.rows, part.cols), part.seen, strict=True)]
            both = torch.cat([part.samples, part.base[None]])[:, :, *inside]
            parts.append((part.rows, part.cols, both.clone()))
        return parts

    whole = torch.full((2, 3, 2 * size[0], 2 * size[1]), torch.nan)
    for parts in on_ranks(num_ranks, on_rank):
        for rows, cols, both in parts:
            whole[:, :, rows.start:rows.stop, cols.start:cols.stop] = both
    assert torch.isfinite(whole).all()
    return whole


def steps(image: torch.Tensor, dim: int) -> tuple[float, float]:
    """Mean steps from pixel to pixel (across the wrapped edge, between other windows)."""
    around = (image - image.roll(1, dim)).abs().movedim(dim, 0).flatten(1).mean(1)
    inside = around[WINDOW_LR * 2::WINDOW_LR * 2]
    return around[0].item(), inside.mean().item()


def test_a_bicubic_image_of_a_texture_that_tiles():
    image, size = texture(), (2 * HEIGHT, 2 * WIDTH)
    whole = (range(2 * HEIGHT), range(2 * WIDTH))
    made = imresize_part(image, (0, 0), (HEIGHT, WIDTH), size, whole, joins=(True, True))
    tiled = imresize_tensor(image.repeat(1, 3, 3)[None], scale=2)[0]
    assert torch.allclose(made, tiled[:, 2 * HEIGHT:4 * HEIGHT, 2 * WIDTH:4 * WIDTH], atol=1e-6)
    below = imresize_part(image, (0, 0), (HEIGHT, WIDTH), size, whole, joins=(True, False))
    assert torch.equal(below[..., 4:-4], made[..., 4:-4]) and not torch.equal(below, made)
    assert part_needed(HEIGHT, 2 * HEIGHT, range(10), joins=True) == range(HEIGHT)
    assert (part_needed(HEIGHT, 2 * HEIGHT, range(20, 30), joins=True)
            == part_needed(HEIGHT, 2 * HEIGHT, range(20, 30)))


@pytest.mark.parametrize("by", [(WINDOW_LR, 0), (0, 2 * WINDOW_LR), (2 * WINDOW_LR, WINDOW_LR)])
def test_a_texture_rolled_by_windows_becomes_the_image_rolled(by):
    image = texture()
    made = super_resolved(image)
    rolled = super_resolved(image.roll(by, (1, 2)))
    wanted = made.roll([2 * px for px in by], (2, 3))
    assert torch.allclose(rolled, wanted, atol=1e-4), (rolled - wanted).abs().max()
    mirrored = super_resolved(image.roll(by, (1, 2)), "reflect")
    assert not torch.allclose(mirrored, wanted, atol=1e-2)


def test_latents_are_decoded_across_the_edge():
    image, family = texture(32, 48), family_of(LATENT)
    made = super_resolved(image, family=family)
    rolled = super_resolved(image.roll((16, 32), (1, 2)), family=family)
    assert torch.allclose(rolled, made.roll((32, 64), (2, 3)), atol=1e-5)


def test_bands_join_where_pixels_do():
    image, family = texture(), family_of(WAVELET)
    made = super_resolved(image, family=family)
    rolled = super_resolved(image.roll((WINDOW_LR, WINDOW_LR), (1, 2)), family=family)
    wanted = made.roll((2 * WINDOW_LR, 2 * WINDOW_LR), (2, 3))
    assert torch.allclose(rolled, wanted, atol=1e-4), (rolled - wanted).abs().max()
    assert torch.equal(made, super_resolved(image, "wrap", "torus", family=family, num_ranks=2))


@pytest.mark.parametrize("noise_scale", [0.0, 1.0])
def test_the_step_across_the_edge_is_like_those_inside(noise_scale):
    image = texture(64, 64)
    for part in super_resolved(image, noise_scale=noise_scale):
        for dim in (-2, -1):
            across, inside = steps(part, dim)
            assert 0.8 < across / inside < 1.25, (across, inside)


def test_it_joins_along_an_axis_of_whole_windows_only():
    image = texture(HEIGHT, WIDTH - 3)
    made = super_resolved(image)
    rolled = super_resolved(image.roll(WINDOW_LR, 1))
    assert torch.allclose(rolled, made.roll(2 * WINDOW_LR, 2), atol=1e-4)
    sideways = super_resolved(image.roll(WINDOW_LR, 2))
    assert not torch.allclose(sideways, made.roll(2 * WINDOW_LR, 3), atol=1e-2)


@pytest.mark.parametrize("exchange", list(EXCHANGES))
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_ranks_cannot_be_seen(exchange, num_ranks):
    image = texture()
    made = super_resolved(image, exchange=exchange, noise_scale=1.0, num_ranks=num_ranks)
    assert torch.equal(made, super_resolved(image, noise_scale=1.0))


@pytest.mark.parametrize("exchange", list(EXCHANGES))
def test_blocks_of_the_encoder_join_too(exchange):
    """More LR rows than a block of the encoder has."""
    image = texture(160, 16)
    made = super_resolved(image, exchange=exchange, num_ranks=3)
    features = family_of(ALIGNED).model.encoder(image.repeat(1, 1, 3)[None].repeat(1, 1, 3, 1))[0]
    wanted = features[0, -3:, 320:640, 32:64]
    bicubic = imresize_part(image, (0, 0), (160, 16), (320, 32), (range(320), range(32)),
                            joins=(True, True))
    assert torch.allclose(made[1], bicubic + wanted, atol=1e-4)


def test_an_encoder_alone_joins_edges():
    image, family = texture(), family_of(ALIGNED, "encoder")
    made = super_resolved(image, family=family)
    rolled = super_resolved(image.roll((5, 3), (1, 2)), family=family)
    assert torch.allclose(rolled, made.roll((10, 6), (2, 3)), atol=1e-5)
    mirrored = super_resolved(image.roll((5, 3), (1, 2)), "reflect", family=family)
    assert not torch.allclose(rolled, mirrored, atol=1e-3)


@pytest.mark.parametrize("exchange", list(EXCHANGES))
def test_a_transformer_joins_edges(exchange):
    """By windows, which are whole patches; more rows than a block of the encoder has."""
    image, family = texture(160, 16), family_of([*ALIGNED, *VIT])
    made = super_resolved(image, family=family)
    rolled = super_resolved(image.roll((WINDOW_LR, WINDOW_LR), (1, 2)), "wrap", exchange,
                            family=family, num_ranks=3)
    wanted = made.roll((2 * WINDOW_LR, 2 * WINDOW_LR), (2, 3))
    assert torch.allclose(rolled, wanted, atol=1e-4), (rolled - wanted).abs().max()
    alone = family_of([*ALIGNED, *VIT], "encoder")
    made, rolled = (super_resolved(image.roll(px, 2), family=alone) for px in (0, 4))
    assert torch.allclose(rolled, made.roll(8, 3), atol=1e-5)


def test_the_thesis_stays_as_published():
    """Its windows wrap, its bicubic image and its encoder do not."""
    image, family = texture(16, 16), family_of(THESIS)
    base = super_resolved(image, family=family)[1]
    assert torch.equal(base, imresize_tensor(image[None], scale=2)[0])
    assert not family.joins_edges and Aligned.joins_edges
