"""The family `latent`: what its autoencoder may not see, what nothing becomes, and its scale."""
import pytest
import torch

from swinmpi.config import load_config
from swinmpi.families.latent import mirrored
from swinmpi.families.loading import make_family
from swinmpi.models.blocks import count_parameters
from tests.support.training import LATENT


def code_of(*overrides):
    config = load_config(overrides=[*LATENT, *overrides]).model
    torch.manual_seed(0)
    family = make_family(config)
    family.code.autoencoder.deviation.copy_(torch.linspace(0.5, 2, config.latent_channels))
    return config, family


@pytest.fixture(autouse=True)
def one_thread():
    """Bits are promised for one thread a rank."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("factor, blocks, channels", [(2, 2, 3), (4, 1, 1)])
def test_a_part_of_whole_windows_decodes_to_the_bytes_it_has_in_the_image(factor, blocks, channels):
    """And the tiles to what the decoder makes of all latents at once."""
    config, family = code_of("model.scale=4", f"model.latent_factor={factor}",
                             f"model.autoencoder_blocks={blocks}", f"model.channels={channels}")
    reach, side = family.reach_px, config.window_px
    assert reach == blocks + 2
    latents = torch.randn(config.latent_channels, 3 * side - 5, 2 * side + 1)
    base = torch.randn(channels, *(size * factor for size in latents.shape[1:]))
    around = mirrored(latents, reach)
    with torch.no_grad():
        whole = family.image(around, base)
        at_once = base + family.code.decoded(latents[None])[0] / config.residual_gain
        torch.testing.assert_close(whole, at_once, rtol=0, atol=1e-5)
        for top, left in ((0, side), (side, 0), (2 * side, side)):
            here = (..., slice(top * factor, None), slice(left * factor, None))
            part = family.image(around[:, top:, left:].clone(), base[here].clone())
            assert torch.equal(part, whole[here])
        left_part = family.image(around[:, :, :side + 2 * reach], base[..., :side * factor])
    assert torch.equal(left_part, whole[..., :side * factor])


def test_a_latent_is_told_by_what_lies_within_reach_and_by_nothing_else():
    config, family = code_of("model.autoencoder_blocks=2")
    reach, factor = family.reach_px, config.latent_factor
    residual = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = family.code.encoded(residual)
        residual[..., 32, 32] += 1
        changed = (family.code.encoded(residual) != before).any(1)[0].nonzero()
    assert changed.min() == 32 // factor - reach and changed.max() == 32 // factor + reach


def test_nothing_stays_nothing_and_twice_as_much_is_twice_as_much():
    """So residual_gain is a matter of training alone."""
    config, family = code_of()
    hr, base = torch.randn(2, 1, 3, 32, 32)
    assert not family.x_0(base, base).any()
    assert torch.equal(family.image(torch.zeros(1, 4, 16, 16), base), base)
    torch.testing.assert_close(family.x_0(base + 2 * (hr - base), base), 2 * family.x_0(hr, base),
                               rtol=1e-4, atol=1e-4)


def test_the_autoencoder_of_the_shipped_configuration_is_small():
    model = make_family(load_config(overrides=["model.family=latent"]).model).model
    assert count_parameters(model.encoder.autoencoder) < 5e5
    assert not any(parameter.requires_grad for parameter in model.encoder.autoencoder.parameters())


def test_latents_are_float32_whatever_the_precision_around():
    _, family = code_of()
    hr, base = torch.randn(2, 1, 3, 32, 32)
    latents = family.x_0(hr, base)
    image = family.image(latents, base)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(family.x_0(hr, base), latents)
        assert torch.equal(family.image(latents, base), image)
