"""The `thesis` family: sizes as published, attention paths, memory formats, precision,
and the shared RRDB trunk."""
import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from swinmpi.config import ThesisModel, load_config
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.models.blocks import (
    SelfAttention,
    count_parameters,
    set_fused_attention,
    sinusoidal_embedding,
)
from swinmpi.models.rrdb import RRDBSuperResolver, seen_by_rrdb
from swinmpi.models.thesis_encoders import RRDBEncoder, condition_channels, make_encoder
from swinmpi.models.thesis_unet import ThesisUNet

SMALL = {"window_px": 16, "rrdb_blocks": 2, "rrdb_channels": 8, "rrdb_growth": 4,
         "unet_channels": [8, 12, 16, 20], "bottleneck_channels": 24, "attention_heads": 2}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(**changes) -> ThesisModel:
    return ThesisModel(**SMALL | changes)


def window_inputs(config: ThesisModel, n: int = 3):
    w = config.window_px
    return (torch.randn(n, config.channels, w, w), torch.arange(n) * 7,
            torch.randn(n, condition_channels(config), w, w))


def test_published_sizes():
    config = ThesisModel()
    with torch.device("meta"):
        unet, encoder, alone = ThesisUNet(config), make_encoder(config), RRDBSuperResolver(config)
    assert count_parameters(unet) + count_parameters(encoder) == 26_888_806
    # alone, its first convolution sees no mask
    assert count_parameters(alone) == 3_351_395 - 32 * 9


def test_published_cost_per_window_and_step():
    config = ThesisModel()
    with torch.device("meta"):
        unet, encoder = ThesisUNet(config), make_encoder(config)
        set_fused_attention(unet, False)
        with FlopCounterMode(display=False) as counter:
            unet(torch.empty(1, 3, 32, 32), torch.zeros(1), encoder(torch.empty(1, 4, 32, 32)))
    assert counter.get_total_flops() == pytest.approx(10.5e9, rel=0.05)


def test_sinusoidal_embedding_is_the_formula():
    embedding = sinusoidal_embedding(torch.tensor([0, 5, 999]), 8)
    expected = [[wave(t / 10000 ** (i / 4)) for wave in (math.sin, math.cos) for i in range(4)]
                for t in (0, 5, 999)]
    assert embedding.dtype == torch.float32
    assert torch.allclose(embedding, torch.tensor(expected), atol=2e-4)
    with pytest.raises(ValueError, match="even"):
        sinusoidal_embedding(torch.tensor([0]), 7)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_equals_torch_multihead(fused):
    block = SelfAttention(24, 4, fused)
    oracle = torch.nn.MultiheadAttention(24, 4, batch_first=True)
    oracle.load_state_dict(
        {"in_proj_weight": block.to_qkv.weight, "in_proj_bias": block.to_qkv.bias,
         "out_proj.weight": block.join_heads.weight, "out_proj.bias": block.join_heads.bias})
    x = 3 * torch.randn(2, 24, 6, 10)
    tokens = x.flatten(2).transpose(1, 2)
    normed = block.norm(tokens)
    tokens = tokens + oracle(normed, normed, normed)[0]
    expected = (tokens + block.feed_forward(tokens)).transpose(1, 2).reshape(x.shape)
    assert torch.allclose(block(x), expected, atol=1e-5)


def test_attention_heads_must_divide():
    with pytest.raises(ValueError, match="3 attention heads"):
        SelfAttention(8, 3)
    with pytest.raises(ConfigError, match="attention_heads.*divide.*64"):
        load_config(overrides=["model.family=thesis", "model.attention_heads=3"])
    with pytest.raises(ConfigError, match="divide.*130"):
        load_config(overrides=["model.family=thesis", "model.unet_channels=[64, 130, 256, 256]"])


@torch.no_grad()
def test_attention_paths_and_memory_formats_agree():
    config = small()
    unet, encoder = ThesisUNet(config).eval(), make_encoder(config).eval()
    x, t, condition = window_inputs(config)
    reference = unet(x, t, encoder(condition))
    set_fused_attention(unet, False)
    assert not any(part.fused for part in unet.modules() if isinstance(part, SelfAttention))
    assert torch.allclose(unet(x, t, encoder(condition)), reference, atol=1e-5)
    last = {"memory_format": torch.channels_last}
    features = encoder.to(**last)(condition.to(**last))
    prediction = unet.to(**last)(x.to(**last), t, features)
    assert torch.allclose(prediction, reference, atol=1e-5)
    assert features.is_contiguous(**last)


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
def test_bf16_autocast_stays_close(fused):
    config = small()
    unet, encoder = ThesisUNet(config).eval(), make_encoder(config).eval()
    set_fused_attention(unet, fused)
    x, t, condition = window_inputs(config)
    reference = unet(x, t, encoder(condition))
    with torch.autocast("cpu", torch.bfloat16):
        prediction = unet(x, t, encoder(condition))
    assert (prediction - reference).abs().max() < 0.1 * reference.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window_px", [16, 40])
def test_unet_keeps_the_window_and_sees_time_and_features(channels, window_px):
    config = small(channels=channels, window_px=window_px, encoder="conv")
    unet = ThesisUNet(config).eval()
    x, t, condition = window_inputs(config)
    features = make_encoder(config)(condition)
    assert features.shape == (3, 8, window_px, window_px)
    prediction = unet(x, t, features)
    assert prediction.shape == x.shape
    assert not torch.allclose(prediction, unet(x, t + 1, features), atol=1e-4)
    assert not torch.allclose(prediction, unet(x, t, features + 1), atol=1e-4)
    assert torch.equal(unet(x, t), unet(x, t, torch.zeros_like(features)))
    assert torch.allclose(prediction[1:2], unet(x[1:2], t[1:2], features[1:2]), atol=1e-5)


def test_no_control_flow_depends_on_data():
    config = small()
    unet, encoder = ThesisUNet(config).eval(), make_encoder(config).eval()
    x, t, condition = window_inputs(config)
    features = encoder(condition)
    assert torch.allclose(torch.export.export(unet, (x, t, features)).module()(x, t, features),
                          unet(x, t, features))
    assert torch.allclose(torch.export.export(encoder, (condition,)).module()(condition), features)


@pytest.mark.parametrize("encoder_name", ["conv", "rrdb"])
@pytest.mark.parametrize(("condition_on", "expected_channels"),
                         [("lr", 4), ("lr+x_t", 7), ("x_t", 4)])
def test_joint_training_reaches_every_parameter(encoder_name, condition_on, expected_channels):
    config = small(encoder=encoder_name, condition_on=condition_on)
    unet, encoder = ThesisUNet(config), make_encoder(config)
    x, t, condition = window_inputs(config)
    assert condition.shape[1] == expected_channels
    functional.l1_loss(unet(x, t, encoder(condition)), torch.randn_like(x)).backward()
    silent = [name for part in (unet, encoder) for name, parameter in part.named_parameters()
              if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())]
    assert silent == []


def test_encoder_none_is_the_unconditional_network():
    assert make_encoder(small(encoder="none")) is None


@torch.no_grad()
def test_joined_convolutions_equal_one_over_concatenated_channels():
    encoder = RRDBEncoder(small(condition_on="lr+x_t")).eval()
    condition = torch.randn(2, 7, 16, 16) / 2
    other_mask = condition.clone()
    other_mask[:, 3] += 1
    assert torch.equal(encoder(condition), encoder(other_mask))
    torch.nn.init.normal_(encoder.join.weight)
    first = encoder.trunk.first
    weight = torch.cat([first.weight, encoder.join.weight], dim=1)
    concatenated = functional.conv2d(condition, weight, first.bias, padding=1)
    assert torch.allclose(first(condition[:, :3]) + encoder.join(condition[:, 3:]), concatenated,
                          atol=1e-4)
    assert not torch.allclose(encoder(condition), encoder(other_mask), atol=1e-3)


@pytest.mark.parametrize("layers", ["published", "text"])
def test_pretrained_trunk_is_shared_then_frozen(layers):
    config = small(layers=layers)
    alone, encoder = RRDBSuperResolver(config), RRDBEncoder(config)
    encoder.load_trunk(alone.state_dict())
    encoder.freeze_trunk()
    condition = torch.randn(2, 4, 16, 16)
    lr = seen_by_rrdb(config, condition[:, :3])
    assert torch.equal(encoder(condition), encoder.project(alone.trunk(lr)))
    encoder(condition).square().mean().backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in trained} == {"join", "project"}
    assert trained >= {"join.weight"} and len(trained) == (5 if layers == "published" else 3)


def test_trunk_of_another_model_is_refused():
    encoder = RRDBEncoder(small())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    for other in (RRDBSuperResolver(small(channels=1)), RRDBSuperResolver(small(rrdb_blocks=3)),
                  ThesisUNet(small())):
        with pytest.raises(CheckpointError, match="RRDB super-resolver"):
            encoder.load_trunk(other.state_dict())
        assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_super_resolver_starts_as_bicubic_and_learns(scale):
    alone = RRDBSuperResolver(small(scale=scale))
    lr = torch.randn(2, 3, 5, 7)
    assert torch.equal(alone(lr), torch.zeros(2, 3, 5 * scale, 7 * scale))
    residual = 0.3 * functional.interpolate(lr, scale_factor=scale)
    optimizer = torch.optim.Adam(alone.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = functional.l1_loss(alone(lr), residual)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
