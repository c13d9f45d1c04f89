"""Configuration: strict, merged in a fixed order, one line per error."""
import pytest

from swinmpi.config import PRESETS, Config, dump_yaml, load_config
from swinmpi.config.strict_yaml import parse_yaml
from swinmpi.errors import ConfigError


def message(*overrides: str, files=()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(files, overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("override", "parts"), [
    ("sampler.stepz=3", ["unknown key sampler.stepz", "did you mean sampler.steps?"]),
    ("foo.bar=1", ["unknown key foo", "sampler"]),
    ("model.window=3", ["unknown key model.window", "did you mean model.window_px?"]),
    ("sampler.shift.max=3", ["unknown key sampler.shift.max", "sampler.shift.max_px"]),
    ("model.rrdb_blocks=2", ["unknown key model.rrdb_blocks", "belongs to another model.family"]),
    ("model.unet_channels=[20,40]",
     ["model: expected unet_channels in multiples of 8", "not [20, 40]"]),
    ("model.attention_heads=5",
     ["attention_heads that divide the last of unet_channels, 96, not 5"]),
    ("model.window_px=18", ["model.window_px"]),
    ("model.unet_channels=[-8,8]", ["multiples of 8"]),
    ("sampler.steps=abc", ["sampler.steps", "expected integer", "'abc'"]),
    ("sampler.steps=2.5", ["sampler.steps", "expected integer", "2.5"]),
    ("sampler.steps=0", ["sampler.steps", "greater than 0"]),
    ("parallel.threads=0", ["parallel.threads", "at least 1"]),
    ("parallel.threads=[1]", ["parallel.threads", "expected integer or 'auto'", "[1]"]),
    ("parallel.precision=fp8", ["parallel.precision", "'auto', 'fp32', 'tf32', 'bf16' or 'fp16'"]),
    ("model.family=foo", ["model", "'aligned', 'thesis'"]),
    ("sampler.steps", ["expected section.key=value"]),
    ("steps=3", ["expected section.key=value"]),
    ("sampler.steps=[1", ["not a YAML value"]),
])
def test_a_wrong_override_is_one_clear_line(override, parts):
    text = message(override)
    assert f"--set {override}" in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize(("content", "part"), [
    ("sampler:\n  steps: 5\n  steps: 6\n", "duplicate key 'steps'"),
    ("sampler: [", "not valid YAML"),
    ("- 1\n", "expected sections"),
    ("sampler:\n  1: 2\n", "expected a name as key"),
    ("sampler: !!python/object:os.system {}\n", "not valid YAML"),
    ("sampler: 3\n", "sampler"),
])
def test_a_wrong_file_is_named(tmp_path, content, part):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    text = message(files=[path])
    assert str(path) in text and part in text


def test_a_missing_or_binary_file_is_named(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in message(files=[tmp_path / "missing.yaml"])
    assert "not valid YAML" in message(files=[tmp_path / "binary.yaml"])


def test_a_window_must_halve_at_every_resolution():
    with pytest.raises(ConfigError, match="window_px in multiples of 8 with 3 resolutions, not 20"):
        load_config(overrides=["model.window_px=20", "model.unet_channels=[16,32,64]"])


def test_exponents_are_floats():
    assert parse_yaml("[1e-4, 3E+2, -1e3, 2.5e-1]") == [1e-4, 300.0, -1000.0, 0.25]
    assert load_config(overrides=["train.learning_rate=1e-4"]).train.learning_rate == 1e-4


def test_later_sources_win(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("sampler:\n  steps: 7\n  eta: 0.5\n")
    base = {"sampler": {"steps": 3, "noise_scale": 0.2, "seed": 9}}
    config = load_config([path], ["sampler.eta=1"], preset="detailed", base=base)
    assert (config.sampler.steps, config.sampler.eta, config.sampler.seed) == (7, 1.0, 9)
    assert config.sampler.noise_scale == PRESETS["detailed"]["sampler"]["noise_scale"]


def test_another_family_starts_from_its_own_defaults():
    base = {"model": {"family": "aligned", "window_px": 48, "encoder_blocks": 4}}
    assert load_config(overrides=["model.family=thesis"], base=base).model.window_px == 32


def test_what_is_dumped_can_be_loaded(tmp_path):
    config = load_config(overrides=["model.family=thesis", "sampler.shift.border=wrap",
                                    "train.learning_rate=1e-5"])
    path = tmp_path / "resolved.yaml"
    path.write_text(dump_yaml(config))
    assert load_config([path]) == config


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_are_valid(name):
    assert load_config(preset=name) != Config() or name == "balanced"


def test_a_configuration_cannot_change():
    with pytest.raises(ValueError, match="frozen"):
        Config().sampler.steps = 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_settings_of_any_editor(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = f"{mark}# größe\r\nsampler:\r\n  steps: 2\r\n"
    (tmp_path / "x.yaml").write_bytes(text.encode(encoding))
    assert load_config([tmp_path / "x.yaml"]).sampler.steps == 2


@pytest.mark.parametrize("content, override, told", [
    (b"# gr\xf6\xdfe", "", "expected UTF-8, got another byte at position 4"),
    (b"", "train.data=gr\udcf6.h5", "expected UTF-8, which settings are recorded in")])
def test_what_is_not_utf8_is_one_line(tmp_path, content, override, told):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        load_config([tmp_path / "x.yaml"], [override] if override else [])
