"""SRDiff's networks as its paper and code have them, beside the number of their parameters
(tests/config/test_configs.py)."""
import pytest
import torch
from torch import nn
from torch.nn import functional

from swinmpi.config import SrdiffModel
from swinmpi.models.blocks import sinusoidal_embedding
from swinmpi.models.srdiff_encoder import SrdiffEncoder
from swinmpi.models.srdiff_unet import SrdiffUNet

SMALL = {"rrdb_channels": 8, "rrdb_growth": 4, "unet_channels": [8, 16, 16, 24]}


@pytest.fixture(params=[2, 4, 8])
def config(request):
    torch.manual_seed(0)
    return SrdiffModel(scale=request.param, **SMALL)


@torch.no_grad()
def test_the_encoder_sees_0_to_1_and_tells_every_third_level(config):
    encoder, lr = SrdiffEncoder(config).eval(), torch.rand(2, 3, 9, 7) * 2 - 1
    levels = encoder.levels(lr)
    x = shallow = encoder.first((lr + 1) / 2)
    for block, level in zip(encoder.blocks, levels, strict=False):
        x = block(x)
        assert torch.equal(level, x)
    assert len(levels) == 9 and torch.equal(levels[8], shallow + encoder.trunk(x))
    assert torch.equal(encoder.features(levels), torch.cat([levels[2], levels[5], levels[8]], 1))
    assert SrdiffEncoder.num_features(config) == 24


@torch.no_grad()
def test_the_encoder_is_a_super_resolver_by_itself(config):
    encoder, lr = SrdiffEncoder(config).eval(), torch.rand(1, 3, 9, 7) * 2 - 1
    nn.init.normal_(encoder.last.weight, std=10)
    x = encoder.levels(lr)[-1]
    assert len(encoder.upsample) == {2: 1, 4: 2, 8: 3}[config.scale]
    for conv in encoder.upsample:
        doubled = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = functional.leaky_relu(conv(doubled), 0.2)
    x = encoder.last(functional.leaky_relu(encoder.refine(x), 0.2))
    image = encoder.image(encoder.levels(lr))
    assert image.shape == (1, 3, 9 * config.scale, 7 * config.scale)
    torch.testing.assert_close(image, x.clamp(0, 1) * 2 - 1)
    assert (image == 1).any() and (image == -1).any()


@torch.no_grad()
def test_the_unet_layer_by_layer(config):
    """Written out once more: where the time, the features and the skips come in."""
    unet, t = SrdiffUNet(config).eval(), torch.tensor([3, 90])
    x, lr_features = torch.randn(2, 3, 32, 48), torch.randn(2, 24, 32 // config.scale,
                                                            48 // config.scale)
    mish, told = functional.mish, functional.conv_transpose2d(
        lr_features, unet.enlarge.weight, unet.enlarge.bias, config.scale, config.scale // 2)
    assert told.shape == (2, 8, 32, 48)
    time = mish(unet.embed[2](mish(unet.embed[0](sinusoidal_embedding(t, 8)))))

    def conv(layer, x):
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), "reflect"), layer.weight,
                                 layer.bias, layer.stride)

    def stage(two, x):
        for block in two.blocks:
            h = mish(conv(block.conv1, x)) + block.time(time)[..., None, None]
            x = block.skip(x) + mish(conv(block.conv2, h))
        return x

    full = stage(unet.encoders[0], x) + told
    half = stage(unet.encoders[1], conv(unet.downs[0], full))
    quarter = stage(unet.encoders[2], conv(unet.downs[1], half))
    eighth = stage(unet.encoders[3], conv(unet.downs[2], quarter))
    y = stage(unet.middle, eighth)
    for decoder, up, skip in zip(unet.decoders, unet.ups, (eighth, quarter, half), strict=True):
        y = functional.conv_transpose2d(stage(decoder, torch.cat([y, skip], dim=1)), up.weight,
                                        up.bias, 2, 1)
    wanted = unet.exit[2](mish(conv(unet.exit[0], y)))
    torch.testing.assert_close(unet(x, t, unet.enlarge(lr_features)), wanted)
    kinds = {type(layer) for layer in unet.modules()}
    assert not kinds & {nn.GroupNorm, nn.BatchNorm2d, nn.LayerNorm, nn.MultiheadAttention}
