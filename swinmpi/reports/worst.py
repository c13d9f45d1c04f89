"""What a run tells of its images in the end: their LR misfit and seam score, and the worst by
name."""
import math
from collections.abc import Mapping, Sequence

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
