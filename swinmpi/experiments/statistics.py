"""What the results of arms say: means with standard errors over the test images, differences image
by image, and how the thesis's order holds."""
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from swinmpi import __version__
from swinmpi.evaluation.statistics import mean_of, plain_number, standard_error_of
from swinmpi.experiments.arms import per_image
from swinmpi.experiments.band_figures import BAND_FIGURES
from swinmpi.experiments.definition import Arm
from swinmpi.experiments.edges import FIGURES_AND_EDGE
from swinmpi.experiments.plan import ExperimentPlan
from swinmpi.images.figures import Figure

FIGURES = [figure for figure in FIGURES_AND_EDGE if figure.compared or figure.gathered]
COMPARED = [figure for figure in FIGURES if figure.compared]

Results = Mapping[str, Sequence[Mapping]]  # of every seed, by the names of arms


def about(plan: ExperimentPlan) -> dict:
    """What the report is of."""
    experiment, budget = plan.experiment, plan.budget
    words = ["swinmpi-experiment", plan.request.name, "--budget", plan.request.budget,
             *[word for text in plan.request.data for word in ("--data", text)],
             "--output", str(plan.request.output)]
    return {"swinmpi": __version__, "experiment": plan.request.name, "title": experiment.title,
            "section": experiment.section, "kind": experiment.kind, "expects": experiment.expects,
            "published": experiment.published.model_dump(), "command": shlex.join(words),
            "budget": {"name": plan.request.budget,
                       **budget.model_dump(exclude={"settings"}, exclude_none=True)},
            "data": list(plan.sources)}


def quality_report(plan: ExperimentPlan, results: Results) -> dict:
    """Of arms that were sampled and judged."""
    reference = plan.experiment.reference or plan.experiment.arms[0].name
    first = results[reference][0]
    arms = [arm_summary(arm.published, results[arm.name], results[reference], arm.name)
            for arm in plan.experiment.arms]
    baselines = {version: figures_of([first], version)
                 for version in ("bicubic",) if version in first["figures"]}
    return {**about(plan), "reference": reference, "num_test_images": len(
        next(iter(first["figures"]["sr"].values()))), "baselines": baselines, "arms": arms,
        "ranking": ranking(plan.experiment.arms, results), "remarks": remarks(results)}


def remarks(results: Results) -> list[str]:
    """What the evaluations remark: once what is said of all arms, else with the names of those."""
    said: dict[str, list[str]] = {}
    for name, seeds in results.items():
        for remark in dict.fromkeys(text for one in seeds for text in one["remarks"]):
            said.setdefault(remark, []).append(name)
    return [remark if len(names) == len(results) else f"{', '.join(names)}: {remark}"
            for remark, names in said.items()]


def arm_summary(published: Mapping, seeds: Sequence[Mapping], reference: Sequence[Mapping],
                name: str) -> dict:
    """Means over the seeds, standard errors over the images; the difference to the reference image
    by image, whose standard error is smaller than those of both."""
    last = seeds[0]
    training = last.get("training")
    return {"name": name, "published": dict(published), "figures": figures_of(seeds, "sr"),
            "regression": figures_of(seeds, "regression"),
            "difference": {figure.name: difference(seeds, reference, figure.name)
                           for figure in COMPARED},
            "mean_of_seed": [{figure.name: plain_number(mean_of(per_image(one, "sr", figure.name)))
                              for figure in COMPARED} for one in seeds],
            "training": training and {key: value for key, value in training.items()
                                      if key != "log"},
            "pretraining": {key: value for key, value in last.get("pretraining", {}).items()
                            if key != "log"} or None,
            "final_loss": final_loss(training), "sampling": last.get("sampling"),
            "seconds_per_image": [one["sampling"]["seconds_per_image"] for one in seeds]}


def figures_of(seeds: Sequence[Mapping], version: str) -> dict:
    """Every figure of a version of the images."""
    if version not in seeds[0]["figures"]:
        return {}
    return {figure.name: summary(over_seeds(seeds, version, figure.name)) if figure.compared
            else of_all_images(seeds, version, figure.name) for figure in figures_told(seeds[0])}


def figures_told(result: Mapping) -> list[Figure]:
    """Those of every experiment, and of bands where this one has them."""
    return FIGURES + [figure for figure in BAND_FIGURES if figure.name in result["figures"]["sr"]]


def of_all_images(seeds: Sequence[Mapping], version: str, name: str) -> dict:
    """A figure of all images together has no standard error over them; its mean over the seeds."""
    values = [one["mean"][version].get(name) for one in seeds]
    return {"mean": None if None in values else mean_of(values), "standard_error": None,
            "images": None}


def over_seeds(seeds: Sequence[Mapping], version: str, name: str) -> np.ndarray:
    """A figure of every test image, its mean over the seeds."""
    return np.mean([per_image(one, version, name) for one in seeds], axis=0)


def summary(values: np.ndarray) -> dict:
    """mean, standard_error over the images, and how many of them have a value."""
    return {"mean": plain_number(mean_of(values)),
            "standard_error": plain_number(standard_error_of(values)),
            "images": int(np.isfinite(values).sum())}


def final_loss(training: Mapping | None) -> float | None:
    """Mean over the last part of the log."""
    if not training or not training["log"]:
        return None
    log = training["log"]
    return mean_of([loss_of(one) for one in log[-max(1, len(log) // 10):]])


def loss_of(record: Mapping) -> float:
    """Of the diffuser, where a family has other losses as well."""
    return record.get("diffusion", record["loss"])


def ranking(arms: Sequence[Arm], results: Results) -> list[dict]:
    """For every pair of arms that the thesis has a PSNR of: the better one there, the difference
    here, image by image, with its standard error, and whether it agrees: within two standard errors
    nothing is decided."""
    known = [arm for arm in arms if "psnr" in arm.published]
    found = []
    for number, one in enumerate(known):
        for other in known[number + 1:]:
            better, worse = sorted((one, other), key=lambda arm: -arm.published["psnr"])
            here = difference(results[better.name], results[worse.name], "psnr")
            mean, error = here["mean"], here["standard_error"]
            if isinstance(mean, float):
                decided = error is not None and abs(mean) > 2 * error
                verdict = ("undecided" if not decided else
                           "agrees" if mean > 0 else "contradicts")
                found.append({"better_in_thesis": better.name, "worse_in_thesis": worse.name,
                              "thesis_db": better.published["psnr"] - worse.published["psnr"],
                              "here_db": mean, "standard_error": error, "verdict": verdict})
    return found


def difference(seeds: Sequence[Mapping], others: Sequence[Mapping], name: str) -> dict:
    """Of a figure of the same images by two arms."""
    return summary(over_seeds(seeds, "sr", name) - over_seeds(others, "sr", name))
