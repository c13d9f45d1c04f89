"""Every YAML in configs/ loads, builds what it says, and the thesis's are the published ones."""
import warnings
from pathlib import Path

import pytest
import torch

from swinmpi.config import load_config
from swinmpi.diffusion.schedule import make_schedule
from swinmpi.families.loading import make_family
from swinmpi.models.blocks import count_parameters
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.training.objective import make_training_module
from swinmpi.training.setup import check_encoder
from swinmpi.training.train import rate_factor
from tests.support.training import write_pairs

CONFIGS = Path(__file__).parents[2] / "configs"
NO_CONFIGS = ("site", "slurm", "experiments")  # YAML that is no configuration
FILES = sorted(path for path in CONFIGS.rglob("*.yaml")
               if path.relative_to(CONFIGS).parts[0] not in NO_CONFIGS)
TRAINING = [path for path in FILES if path.parent.name == "train"
            and not path.stem.endswith("_data")]


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@named(FILES)
def test_every_configuration_loads(path):
    load_config([path])


@named([path for path in FILES if path.stem.endswith("_data")])
def test_data_are_cut_for_the_model_they_belong_to(path):
    data, training = (load_config([path]).data,
                      load_config([path.with_name(path.name.replace("_data", ""))]))
    assert data.scale == training.model.scale and data.channels == training.model.channels
    assert data.size_px >= training.train.crop_px


@named(TRAINING)
def test_every_training_configuration_can_start(path, tmp_path):
    config = load_config([path])
    check_encoder(config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="schedule thesis")
        module = make_training_module(config)
    assert count_parameters(module.model) > 1e5
    pairs = write_pairs(tmp_path / "pairs.h5", config.model.scale, config.model.channels,
                        config.train.crop_px, num_train=1)
    with PairReader(pairs) as reader:
        windows, = BatchSource(config, module.family, reader, 0, 1).images([0]).windows
    if config.train.target == "encoder":
        assert windows == [], "the whole crop is regressed"
        return
    whole = (config.train.crop_px // (config.model.window_px or config.train.crop_px)) ** 2
    assert len(windows) == (config.train.windows_per_image if config.train.batch == "iid"
                             else whole)


@named([path for path in TRAINING if path.stem in ("thesis_64", "thesis_128")])
def test_the_thesis_as_published(path):
    config = load_config([path])
    with torch.device("meta"):
        model = make_family(config.model).model
    assert count_parameters(model) == pytest.approx(26.9e6, rel=0.01)
    assert config.train.crop_px // config.model.scale == config.model.window_px == 32
    train = config.train
    assert (train.learning_rate, train.ema_decay, train.ema_ramp,
            train.annealing) == (3e-4, 0.95, False, "epoch")
    assert train.batch_images // train.accumulate == 20
    assert (config.diffusion.steps, config.diffusion.prediction,
            config.sampler.method) == (100, "eps", "ddpm")


@named([path for path in TRAINING if path.stem.startswith(("srdiff_x", "vanilla"))])
def test_the_baselines_are_one_window(path):
    config = load_config([path])
    assert (config.model.window_px, config.sampler.shift.pattern) == (None, "none")


def test_srdiff_as_published():
    """Parameters by the paper's settings: rounded, in millions."""
    for scale, widths, unet, encoder in ((4, [64, 128, 128, 256], "9.37", "1.48"),
                                         (8, [64, 128, 128, 256], "10.55", "1.49"),
                                         (4, [64, 128, 192, 256], "11.76", "1.48")):
        config = load_config([CONFIGS / "train" / "srdiff_x4.yaml"],
                             [f"model.scale={scale}", f"model.unet_channels={widths}"])
        with torch.device("meta"):
            model = make_family(config.model).model
        assert f"{count_parameters(model.unet) / 1e6:.2f}" == unet
        assert f"{count_parameters(model.encoder) / 1e6:.2f}" == encoder
    betas = make_schedule(config.diffusion.schedule, config.diffusion.steps).betas
    assert len(betas) == 100 and betas.max() == 0.999
    train = config.train
    rates = [train.learning_rate * rate_factor(train, update, 0)
             for update in (0, 99_999, 100_000, 299_999)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4, 5e-5])


@pytest.mark.parametrize("first, then", [("rrdb_pretrain", "thesis_64"),
                                         ("srdiff_encoder_x2", "srdiff_x2"),
                                         ("srdiff_encoder_x4", "srdiff_x4"),
                                         ("latent_autoencoder_x2", "latent_x2")])
def test_the_encoder_trained_alone_fits_where_it_is_used(first, then):
    alone, used = (load_config([CONFIGS / "train" / f"{name}.yaml"]) for name in (first, then))
    shared = {"rrdb_blocks", "rrdb_channels", "rrdb_growth", "scale", "channels",
              "encoder_channels", "encoder_blocks", "feature_channels", "latent_factor",
              "latent_channels", "autoencoder_channels", "autoencoder_blocks"}
    assert alone.model.model_dump(include=shared) == used.model.model_dump(include=shared)
    if used.train.encoder_checkpoint is not None:
        assert used.train.encoder_checkpoint == f"{alone.train.output}/best.safetensors"
