"""What a run tells of its images in the end: their LR misfit and seam score, the worst by name,
and which are unlike those that the checkpoint knows."""
import math
from collections.abc import Mapping, Sequence

from swinmpi.images.likeness.noise import NAME as NOISE
from swinmpi.images.likeness.usual import KINDS, meanings

MOST_NAMED = 3
TOLD = (("lr_misfit", "LR misfit", "{:.2g}", " grey levels"), ("seam_score", "seams", "{:.2f}", ""))


def describe_images(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line on the figures of images by name, the mean and the highest; none where there is
    nothing to tell.

    >>> describe_images({"image 0": {"lr_misfit": 0.07}, "image 1": {"lr_misfit": 0.11}})
    ['LR misfit 0.09 grey levels on average, most in image 1 (0.11), image 0 (0.07)']
    """
    told = []
    for name, title, style, unit in TOLD:
        values = {image: own[name] for image, own in figures.items()
                  if math.isfinite(own.get(name, math.nan))}
        if values:
            mean = style.format(sum(values.values()) / len(values))
            told.append(f"{title} {mean}{unit} on average{worst(values, style)}")
    return ["; ".join(told)] if told else []


def worst(values: Mapping[str, float], style: str) -> str:
    """The images with the highest values, of several."""
    if len(values) < 2:
        return ""
    ranked: Sequence[str] = sorted(values, key=lambda image: -values[image])[:MOST_NAMED]
    named = ", ".join(f"{image} ({style.format(values[image])})" for image in ranked)
    return f", most in {named}"


def describe_noise(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line on the noise levels that the network was told of images by name; none where it was
    not told.

    >>> describe_noise({"image 0": {"noise": 0.02}, "image 1": {"noise": 0.031}})
    ['noise told to the network: 0.02 to 0.031 of the value range, by image']
    """
    levels = [own[NOISE] for own in figures.values() if NOISE in own]
    if not levels:
        return []
    least, most = (f"{level:.3g}" for level in (min(levels), max(levels)))
    return [f"noise told to the network: {least} of the value range" if least == most else
            f"noise told to the network: {least} to {most} of the value range, by image"]


def describe_unlike(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line on the images by name that are unlike those the checkpoint knows, in what, and what to
    do; none where all are like them, or where it does not tell.

    >>> describe_unlike({"image 0": {"unlike_noise": 0.9}, "image 1": {"unlike_noise": 2}})[0][:73]
    '1 of 2 images is unlike those that the checkpoint knows: image 1 (noisy);'
    """
    found: dict[str, dict[str, float]] = {}
    for image, own in figures.items():
        far = {kind: own.get(f"unlike_{kind}", math.nan) for kind in KINDS}
        if outside := {kind: value for kind, value in far.items() if abs(value) > 1}:
            found[image] = outside
    if not found:
        return []
    ranked = sorted(found, key=lambda image: -max(map(abs, found[image].values())))
    told = {image: meanings(found[image]) for image in ranked}
    named = [f"{image} ({', and '.join(words for words, _ in told[image])})"
             for image in ranked[:MOST_NAMED]]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    advice = dict.fromkeys(what for image in ranked for _, what in told[image])
    return [f"{len(found)} of {len(figures)} images {'is' if len(found) == 1 else 'are'} unlike "
            f"those that the checkpoint knows: {', '.join(named)}{more}; "
            f"{'; '.join(advice)}; or train on such images"]
