"""One contract for every figure of the table, and for one that only this file knows."""
import json
import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinmpi.config import load_config
from swinmpi.errors import OutputError
from swinmpi.evaluation.evaluate import Request, plan, run
from swinmpi.evaluation.report import as_text
from swinmpi.images.figures import (
    FIGURES,
    ComparedImage,
    Figure,
    ImagePart,
    Summed,
    compare_image,
    compared_figures,
    count_sums,
    finish_sums,
    lr_range,
    stored_names,
    summed_figures,
    sums_of_part,
    with_border,
)
from swinmpi.images.imresize import imresize
from swinmpi.images.lr_rows import LrRows
from swinmpi.images.perceptual import load_lpips
from swinmpi.sampling.exchange import FinishedPart
from swinmpi.sampling.pixels import from_network
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange
from tests.support.lpips import write_backbone
from tests.support.sampling import smooth_stack, write_stack

SCALE, WINDOW_PX, LR_SIZE, DATA_RANGE = 2, 8, (20, 17), 255.0
SIZE = tuple(SCALE * length for length in LR_SIZE)
HOLE, LR_HOLE = np.s_[10:14, 20:24], np.s_[5:7, 10:12]


def dark_pixels(part: ImagePart) -> np.ndarray:
    """(number of dark values, number of finite values) of the wanted pixels."""
    rows, cols = (slice(line.start - start, line.stop - start)
                  for line, start in zip(part.wanted, part.origin, strict=True))
    sr = part.sr[rows, cols]
    return np.array([(sr < 64).sum(), np.isfinite(sr).sum()], dtype=np.float64)


TINY = Figure("dark_share", "dark", ".1f", "share of dark values", 0.0,
              Summed(2, dark_pixels, lambda sums, _: sums[0] / sums[1] if sums[1] else math.nan),
              compared=lambda one: float(np.nanmean(one.image < 64)))
TABLE = (*FIGURES, TINY)

every_summed = pytest.mark.parametrize("figure", summed_figures(TABLE), ids=lambda one: one.name)
every_compared = pytest.mark.parametrize("figure", compared_figures(TABLE),
                                         ids=lambda one: one.name)


@pytest.fixture(scope="module")
def distance(tmp_path_factory):
    """LPIPS with random weights."""
    return load_lpips(write_backbone(tmp_path_factory.mktemp("torch")))


def smooth(size: tuple[int, int], channels: int = 3, seed: int = 0) -> np.ndarray:
    """(H, W, C) float64, 80..200."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(80, 200, (-(-size[0] // 4), -(-size[1] // 4), channels))
    return imresize(coarse, size=size).clip(80, 200)


def noisy(image: np.ndarray, seed: int = 1) -> np.ndarray:
    return image + np.random.default_rng(seed).normal(0, 5, image.shape)


def whole_part() -> ImagePart:
    """An image as one part, every kind of figure finite."""
    sr, whole = smooth(SIZE), (range(SIZE[0]), range(SIZE[1]))
    base = (sr - 140) / 60
    return ImagePart(noisy(sr), imresize(sr, scale=1 / SCALE), noisy(base, 2), base, whole, whole,
                     LR_SIZE, SCALE, WINDOW_PX)


def cut(part: ImagePart, wanted: tuple[range, range], held: tuple[range, range]) -> ImagePart:
    """The part of a whole image that stands for the pixels `wanted` and holds the pixels `held`."""
    rows, cols = (slice(line.start, line.stop) for line in held)
    lr_rows, lr_cols = (slice(line.start, line.stop)
                        for line in (lr_range(line, part.scale) for line in held))
    return replace(part, sr=part.sr[rows, cols], sample=part.sample[rows, cols],
                   base=part.base[rows, cols], lr=part.lr[lr_rows, lr_cols], wanted=wanted,
                   held=held)


def with_own_border(part: ImagePart, wanted: tuple[range, range]) -> ImagePart:
    """The part with the border it needs, in whole LR pixels."""
    needed = [with_border(line, size, part.scale)
              for line, size in zip(wanted, part.size, strict=True)]
    held = [range(line.start // SCALE * SCALE, -(-line.stop // SCALE) * SCALE) for line in needed]
    return cut(part, wanted, tuple(held))


def split(edges: set[int], size: int) -> list[range]:
    """Ranges between edges, all of 0..size."""
    inner = sorted({0, size, *(edge for edge in edges if edge < size)})
    return [range(start, stop) for start, stop in zip(inner, inner[1:], strict=False)]


edges = st.sets(st.integers(1, max(SIZE) - 1), max_size=4)


@every_summed
@settings(max_examples=25, deadline=None)
@given(edges, edges, st.booleans())
def test_sums_over_any_parts_are_those_over_the_whole(figure, row_edges, col_edges, hole):
    whole = whole_part()
    if hole:
        for image in (whole.sr, whole.sample):
            image[HOLE] = np.nan
    parts = [with_own_border(whole, (rows, cols)) for rows in split(row_edges, SIZE[0])
             for cols in split(col_edges, SIZE[1])]
    sums = sum(figure.summed.of_part(part) for part in parts)
    expected = figure.summed.of_part(whole)
    assert expected.shape == (figure.summed.num_sums,) and expected.dtype == np.float64
    np.testing.assert_allclose(sums, expected, rtol=1e-10)
    value = figure.summed.finish(expected, DATA_RANGE)
    assert figure.summed.finish(sums, DATA_RANGE) == pytest.approx(value, rel=1e-10)


@every_summed
def test_a_nan_pixel_adds_nothing_to_the_sums(figure):
    """Whatever it is measured by: LR or base may hold any value there."""
    sums = []
    for value in (0.0, 1e6):
        part = whole_part()
        part.sr[HOLE] = part.sample[HOLE] = np.nan
        part.base[HOLE] = part.lr[LR_HOLE] = value
        sums.append(figure.summed.of_part(part))
    assert np.isfinite(sums[0]).all() and np.array_equal(sums[0], sums[1])
    part.sr[:] = part.sample[:] = np.nan
    assert math.isnan(figure.summed.finish(figure.summed.of_part(part), DATA_RANGE))


@every_summed
def test_nothing_summed_is_nan(figure):
    assert math.isnan(figure.summed.finish(np.zeros(figure.summed.num_sums), DATA_RANGE))


@every_summed
def test_the_sums_of_a_perfect_image_give_the_best_value(figure):
    """No error to LR; the network adds the same slope everywhere, as far from a seam as can be."""
    part = whole_part()
    sr = smooth(SIZE)
    slope = np.add.outer(np.arange(SIZE[0]), np.arange(SIZE[1]))[..., None]
    perfect = replace(part, sr=sr, lr=imresize(sr, scale=1 / SCALE),
                      sample=np.broadcast_to(slope, sr.shape), base=np.zeros(sr.shape))
    value = figure.summed.finish(figure.summed.of_part(perfect), DATA_RANGE)
    assert value == pytest.approx(figure.best)


@every_compared
def test_a_perfect_image_compares_best(figure, distance):
    """Where an error must be there to be measured, it is the same slope everywhere."""
    hr = smooth((64, 48))
    one = ComparedImage(hr, hr, imresize(hr, scale=0.5), DATA_RANGE, 16, distance)
    value = figure.compared(one)
    if math.isnan(value):
        slope = np.add.outer(np.arange(64.0), np.arange(48.0))[..., None]
        value = figure.compared(replace(one, image=hr + slope))
    assert value == pytest.approx(figure.best)


@every_compared
def test_a_nan_pixel_compares_nowhere(figure, distance):
    """Whatever it is measured by: HR and LR may hold any value there."""
    values = []
    for value in (0.0, 200.0):
        hr = smooth((64, 48))
        image, lr = noisy(hr), imresize(hr, scale=0.5)
        # LPIPS needs whole images and takes a missing pixel from the other one.
        hr[HOLE], lr[LR_HOLE] = math.nan if figure.optional else value, value
        image[HOLE] = np.nan
        one = ComparedImage(image, hr, lr, DATA_RANGE, 16, distance)
        values.append(figure.compared(one))
    assert math.isfinite(values[0]) and values[0] == pytest.approx(values[1], rel=1e-9)


def test_what_is_not_known_is_nan_and_every_figure_has_its_value():
    hr = smooth((64, 48))
    known = ComparedImage(noisy(hr), hr, imresize(hr, scale=0.5), DATA_RANGE, 16)
    values = compare_image(known, TABLE)
    assert list(values) == [figure.name for figure in compared_figures(TABLE)]
    absent = {figure.name for figure in compared_figures(TABLE) if figure.optional}
    assert {name for name, value in values.items() if math.isnan(value)} == absent
    less = compare_image(replace(known, window_px=None), TABLE)
    assert {name for name in less if math.isnan(less[name])} > absent


def test_sums_of_all_figures_are_finished_by_name():
    part = whole_part()
    sums = sums_of_part(part, TABLE)
    assert sums.shape == (count_sums(TABLE),) and sums.dtype == np.float64
    assert finish_sums(sums, DATA_RANGE, TABLE) == {
        figure.name: figure.summed.finish(figure.summed.of_part(part), DATA_RANGE)
        for figure in summed_figures(TABLE)}
    assert sums_of_part(part, ()).shape == (0,) and finish_sums(np.zeros(0), 1.0, ()) == {}


def test_names_are_unique_and_a_figure_is_used_somewhere():
    assert len({figure.name for figure in TABLE}) == len(TABLE)
    with pytest.raises(ValueError, match="with `summed`, `compared` or `gathered`"):
        Figure("none", "none", ".1f", "used nowhere", 0.0)


def test_a_part_without_its_border_is_refused():
    whole = whole_part()
    wanted = range(16, 24), range(0, SIZE[1])
    held = range(12, 30), range(0, SIZE[1])
    with pytest.raises(ValueError, match=r"expected it to hold range\(10, 30\) of 40 SR pixels"):
        cut(whole, wanted, held)
    with pytest.raises(ValueError, match="expected .* pixels, got"):
        replace(whole, lr=whole.lr[:-1])


def test_a_new_figure_is_computed_by_a_run_and_stored(tmp_path):
    """From a finished rectangle to OUT, by the code of a run with another table."""
    stack_file = write_stack(tmp_path / "lr.h5", smooth_stack(1, *LR_SIZE, dtype="uint8"))
    config = load_config(overrides=[f"model.scale={SCALE}", "model.window_px=16"])
    names = stored_names(TABLE)
    with Stack.open(str(stack_file)) as stack, StackOutput.open(
            tmp_path / "out.h5", stack, OutputPlan(SCALE, figures=names), {}) as output:
        pixels, sums = from_network(finished(), strip(stack), ValueRange(0.0, 255.0),
                                    {"sr": np.dtype("uint8")}, config.model, TABLE)
        output.write(0, {"sr": pixels[0].astype(np.uint8)}, finish_sums(sums, 255.0, TABLE))
        output.finish({})
    with h5py.File(tmp_path / "out.h5") as file:
        stored = {name: values[0] for name, values in file["entry/per_image"].items()}
        share = (file["entry/data/sr"][0] < 64).mean()
    assert set(stored) == {"done", *names}
    assert stored[TINY.name] == pytest.approx(share) and share > 0


def finished() -> FinishedPart:
    """The whole image as a run finishes it."""
    whole = range(SIZE[0]), range(SIZE[1])
    generator = torch.Generator().manual_seed(0)
    samples = torch.rand(1, 1, *SIZE, generator=generator) * 2 - 1
    return FinishedPart(0, *whole, whole, samples, torch.zeros(1, *SIZE))


def strip(stack: Stack) -> LrRows:
    """The LR image 0, as ranks that finish images have it."""
    raw = stack.read(0)
    return LrRows.whole(torch.from_numpy(raw), raw)


def test_a_partial_output_with_other_figures_is_not_resumed(tmp_path):
    stack_file = write_stack(tmp_path / "lr.h5", smooth_stack(1, *LR_SIZE, dtype="uint8"))
    with Stack.open(str(stack_file)) as stack:
        StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(SCALE), {}).close()
        StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(SCALE), {}).close()
        more = OutputPlan(SCALE, figures=stored_names(TABLE))
        with pytest.raises(OutputError, match=r"begun with other settings \(figures differ\)"):
            StackOutput.open(tmp_path / "out.h5", stack, more, {})


def test_a_new_figure_is_in_the_answer_of_an_evaluation(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hr = smooth_stack(2, 32, 32, dtype="uint8")
    sr = np.where(hr < 250, hr + 3, hr).astype(np.uint8)
    lr = np.stack([imresize(image, scale=0.5) for image in hr])
    files = {name: str(write_stack(tmp_path / f"{name}.h5", images))
             for name, images in (("sr", sr), ("hr", hr), ("lr", lr))}
    request = Request(files["sr"], files["hr"], tmp_path / "out", files["lr"])
    evaluation = run(plan(request, TABLE))
    report = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert list(report["mean"]["sr"])[-1] == TINY.name
    assert report["images"][0]["sr"][TINY.name] == pytest.approx((sr[0] < 64).mean())
    assert " dark" in as_text(evaluation).splitlines()[0]
    only = run(plan(request, (TINY,)))
    assert list(only.mean["sr"]) == [TINY.name] and (tmp_path / "out" / "evaluate.png").exists()
