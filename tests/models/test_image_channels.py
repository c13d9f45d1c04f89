"""A network for colours made into one for grey images, and the other way: what it answers."""
import pytest
import torch

from swinmpi.config import load_config
from swinmpi.families.loading import make_family
from swinmpi.models.image_channels import to_channels
from swinmpi.models.thesis_encoders import thesis_condition
from tests.support.training import ALIGNED, LATENT, SRDIFF, THESIS, VANILLA, VIT, WAVELET


def model_of(channels, *overrides, takes_steps=True):
    """Seeded weights, none of them zero."""
    config = load_config(overrides=[*ALIGNED, *overrides, f"model.channels={channels}"]).model
    torch.manual_seed(0)
    made = make_family(config, takes_steps).model.double().eval()
    for parameter in made.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return config, made


def remade(before, after, *overrides):
    """(the network, itself for another number of channels)."""
    config, first = model_of(before, *overrides)
    _, second = model_of(after, *overrides)
    tensors = first.state_dict()
    second.load_state_dict(tensors | to_channels(tensors, config, after))
    return first, second


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def triple(grey):
    return grey.expand(-1, 3, -1, -1)


@pytest.mark.parametrize("settings", [["model.scale=2"], ["model.scale=3"], VIT],
                         ids=["2", "3", "vit"])
def test_grey_from_colour_answers_for_grey_as_the_colour_network_does(settings):
    colour, grey = remade(3, 1, *settings)
    lr = draw(2, 1, 9, 7)
    in_colour, told = colour.encoder(triple(lr))
    in_grey, told_in_grey = grey.encoder(lr)
    torch.testing.assert_close(told_in_grey, told)
    torch.testing.assert_close(in_grey[:, :-1], in_colour[:, :-3], msg="features")
    torch.testing.assert_close(in_grey[:, -1], in_colour[:, -3:].mean(1), msg="the regression")
    x_t, border = draw(2, 1, 16, 16), draw(2, 1, 16, 16)
    features, residual, t = draw(2, 4, 16, 16), draw(2, 1, 16, 16), torch.tensor([3, 40])
    grey_output = grey.unet(x_t, t, torch.cat([features, residual], 1), border, told)
    colours = colour.unet(triple(x_t), t, torch.cat([features, triple(residual)], 1), border, told)
    torch.testing.assert_close(grey_output, colours.mean(1, keepdim=True))


def test_latents_of_grey_are_those_of_grey_in_colour():
    colour, grey = remade(3, 1, *LATENT, "model.scale=4", "model.autoencoder_blocks=2")
    lr, missed, latents = draw(2, 1, 9, 7), draw(2, 1, 24, 24), draw(2, 4, 12, 12)
    in_colour, told = colour.encoder(triple(lr))
    in_grey, told_in_grey = grey.encoder(lr)
    torch.testing.assert_close(told_in_grey, told)
    torch.testing.assert_close(in_grey[:, -4:], in_colour[:, -12:].unflatten(1, (3, 4)).mean(1))
    before, after = colour.encoder.autoencoder, grey.encoder.autoencoder
    torch.testing.assert_close(after.encode(missed), before.encode(triple(missed)))
    torch.testing.assert_close(after.decode(latents), before.decode(latents).mean(1, keepdim=True))
    features, residual, t = draw(2, 4, 12, 12), draw(2, 4, 12, 12), torch.tensor([3, 40])
    border = draw(2, 1, 12, 12)
    seen, in_three = (torch.cat([features, *[residual] * times], 1) for times in (1, 3))
    torch.testing.assert_close(grey.unet(latents, t, seen, border, told),
                               colour.unet(latents, t, in_three, border, told))


def test_what_is_not_the_same_is_a_regression_with_colours_of_its_own():
    """The limit that the module tells of."""
    colour, grey = remade(3, 1)
    x_t, border, told = draw(2, 1, 16, 16), draw(2, 1, 16, 16), draw(2, 8)
    features, residual, t = draw(2, 4, 16, 16), draw(2, 3, 16, 16), torch.tensor([3, 40])
    mean = residual.mean(1, keepdim=True)
    grey_output = grey.unet(x_t, t, torch.cat([features, mean], 1), border, told)
    colours = colour.unet(triple(x_t), t, torch.cat([features, residual], 1), border, told)
    assert (grey_output - colours.mean(1, keepdim=True)).abs().max() > 1e-3


def test_colour_from_grey_answers_for_grey_as_the_grey_network_does():
    grey, colour = remade(1, 3)
    lr = draw(2, 1, 8, 8)
    (in_grey, told), (in_colour, _) = grey.encoder(lr), colour.encoder(triple(lr))
    torch.testing.assert_close(in_colour[:, -3:], triple(in_grey[:, -1:]))
    x_t, border = draw(2, 1, 16, 16), draw(2, 1, 16, 16)
    t = torch.tensor([3, 40])
    torch.testing.assert_close(colour.unet(triple(x_t), t, in_colour, border, told),
                               triple(grey.unet(x_t, t, in_grey, border, told)))


def test_an_encoder_alone_can_change_as_well():
    config, colour = model_of(3, "train.target=encoder", takes_steps=False)
    _, grey = model_of(1, "train.target=encoder", takes_steps=False)
    tensors = colour.state_dict()
    changed = to_channels(tensors, config, 1)
    assert changed.keys() == {"head.weight", "tail.weight", "tail.bias"}
    grey.load_state_dict(tensors | changed)
    lr = draw(1, 1, 8, 8)
    torch.testing.assert_close(grey(lr)[0][:, -1], colour(triple(lr))[0][:, -3:].mean(1))


OTHERS = {"thesis": THESIS, "thesis text": [*THESIS, "model.layers=text"],
          "thesis x_t": [*THESIS, "model.condition_on=lr+x_t"],
          "thesis conv": [*THESIS, "model.encoder=conv", "model.condition_on=lr+x_t"],
          "thesis vit": [*THESIS, *VIT],
          "thesis synthesis": [*THESIS, "model.condition_on=x_t"],
          "srdiff": SRDIFF, "vanilla": VANILLA,
          "wavelet": WAVELET,
          "vanilla alone": [*VANILLA, "model.conditional=false"]}


@pytest.mark.parametrize("name, takes_steps", [
    *((name, True) for name in OTHERS), ("thesis", False), ("thesis text", False),
    ("srdiff", False)])
def test_every_tensor_of_every_family_that_channels_change_is_made(name, takes_steps):
    (config, colour), (_, grey) = (of_family(name, channels, takes_steps) for channels in (3, 1))
    shapes = {key: value.shape for key, value in grey.state_dict().items()}
    before = colour.state_dict()
    changed = to_channels(before, config, 1)
    assert {key: value.shape for key, value in (before | changed).items()} == shapes
    assert changed.keys() == {key for key in before if before[key].shape != shapes[key]}


@pytest.mark.parametrize("name", OTHERS)
def test_other_networks_answer_for_grey_as_well(name):
    (config, colour), (_, grey) = (of_family(name, channels) for channels in (3, 1))
    grey.load_state_dict(colour.state_dict() | to_channels(colour.state_dict(), config, 1))
    x_t, t = draw(2, 1, 16, 16).float(), torch.tensor([3, 40])
    lr, answers = x_t.flip(-1), []
    for network, show in ((grey, lambda image: image), (colour, triple)):
        told = told_in(config, network, show(lr), show(x_t))
        answers.append(network.unet(show(x_t), t, *told).mean(1, keepdim=True))
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-4)


def of_family(name, channels, takes_steps=True):
    config = load_config(overrides=[*OTHERS[name], f"model.channels={channels}"]).model
    torch.manual_seed(0)
    return config, make_family(config, takes_steps).model.eval()


def told_in(config, network, lr, x_t):
    """What the U-Net of a family is told."""
    if config.family == "thesis":
        return (network.encoder(thesis_condition(config, lr, lr[:, :1].flip(-2), x_t)),)
    if config.family == "srdiff":
        encoder = network.encoder
        enlarged = network.unet.enlarge(encoder.features(encoder.levels(lr)))
        return (enlarged[:, :, :16, :16],)
    if config.family == "wavelet":
        features, told = network.encoder(lr)
        return features, lr[:, :1], told, torch.tensor([1, 3])
    return (lr,) if config.conditional else ()
