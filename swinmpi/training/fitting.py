"""What a training run takes from its pairs where the user says nothing, and all that does not fit
them, told at once."""
import math
from collections.abc import Iterator

from swinmpi.config import Config
from swinmpi.errors import ConfigError
from swinmpi.storage.pairs import PairReader


def fitted(config: Config, pairs: PairReader) -> Config:
    """With `model.scale`, `model.channels` and `train.crop_px` of the pairs, as far as neither a
    file nor the command line gives them.

    A crop is as large as by default, or as the stored images have room for.
    """
    told = {"scale": pairs.scale, "channels": pairs.channels}
    if pairs.scale in config.model.scales:
        told["scale"] = int(pairs.scale)
    else:
        del told["scale"]
    config = config.replaced(model={name: value for name, value in told.items()
                                    if name not in config.model.model_fields_set})
    if "crop_px" in config.train.model_fields_set:
        return config
    return config.replaced(train={"crop_px": fitting_crop(config, pairs.size_px)})


def fitting_crop(config: Config, stored_px: int) -> int:
    """The largest crop up to the default one that is made of whole LR pixels and, without a border,
    of whole windows; what is nearest where there is none."""
    model = config.model
    wraps = config.sampler.shift.border == "wrap"
    unit = math.lcm(model.scale, (model.seam_px or 1) if wraps else 1)
    return max(min(config.train.crop_px, stored_px) // unit, 1) * unit


def check_fit(config: Config, pairs: PairReader, num_ranks: int) -> None:
    """ConfigError with everything in which data, model, crop and ranks do not fit together."""
    problems = [*misfits_of_data(config, pairs), *misfits_of_crop(config, pairs, num_ranks)]
    if problems:
        raise ConfigError("; ".join(problems))


def misfits_of_data(config: Config, pairs: PairReader) -> Iterator[str]:
    """In a few words each, starting with what is to be changed."""
    model, data = config.model, config.train.data
    height, width = pairs.hr.shape[1:3]
    if pairs.scale != model.scale:
        *others, last = model.scales
        several = f"{', '.join(map(str, others))} or {last}"
        wanted = model.scale if "scale" in model.model_fields_set else several
        yield f"{data}: expected pairs of scale {wanted} (model.scale), got {pairs.scale:g}"
    if pairs.channels != model.channels:
        yield f"{data}: expected {model.channels} channels (model.channels), got {pairs.channels}"
    if height != width:
        yield f"{data}: expected square images, got {height} x {width}"
    if len(pairs.train_indices) == 0:
        yield f"{data}: holds no images to train on (split 0)"


def misfits_of_crop(config: Config, pairs: PairReader, num_ranks: int) -> Iterator[str]:
    model, settings, crop_px = config.model, config.train, config.train.crop_px
    if settings.batch_images % (num_ranks * settings.accumulate):
        yield ("train.batch_images: expected a multiple of ranks x train.accumulate = "
               f"{num_ranks} x {settings.accumulate}, got {settings.batch_images}")
    window_px = model.seam_px or model.scale
    if crop_px < window_px:
        yield (f"train.crop_px: expected at least a window of {window_px} px "
               f"(model.window_px), got {crop_px}")
    if crop_px > pairs.size_px or crop_px % model.scale:
        yield (f"train.crop_px: expected a multiple of {model.scale}, "
               f"at most the stored {pairs.size_px} px, got {crop_px}")
    if config.sampler.shift.border == "wrap" and crop_px % window_px:
        yield (f"train.crop_px: expected whole windows of {window_px} px with border wrap, "
               f"got {crop_px}")


def values_of(pairs: PairReader) -> dict:
    """What a checkpoint keeps of the pairs it was trained on: the values that are -1 and 1, and
    their dtype, as far as the pairs tell; how LR was degraded, where it was, and by what it was
    made, where not by bicubic imresize."""
    told: dict = {}
    if pairs.value_range is not None:
        told |= {"value_range": [*pairs.value_range], "value_dtype": pairs.value_dtype}
    if pairs.degradation:
        told["degradation"] = {name: [*both] for name, both in pairs.degradation.items()}
    if pairs.kernel != "bicubic":
        told["lr_kernel"] = pairs.kernel
    return told
