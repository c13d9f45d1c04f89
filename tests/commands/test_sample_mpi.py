"""Promise 1 under a real mpirun: the same bytes for any number of ranks, groups, images in a step,
and after kills."""
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from swinmpi.cli.sample import main
from tests.commands.test_sample_io import damage
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import THESIS, VIT

PROGRAMS = Path(__file__).parents[1] / "programs" / "mpi"
LAUNCH_TIMEOUT_S = 900
WINDOW, TORUS = "model.window_px=32", "parallel.exchange=torus"

# name: (stack, checkpoint, settings). 40 x 36 px are 9 windows, with the thesis's border 9 as
# well; 40 x 20 px are 6.
SAME_BYTES = {
    "plain": ("three", "aligned", ()),
    "one image per step": ("three", "aligned", ("parallel.images_per_step=1",)),
    "three images per step": ("three", "aligned", ("parallel.images_per_step=3",)),
    "one rank per image": ("three", "aligned", ("--ranks-per-image=1",)),
    "two ranks per image": ("three", "aligned", ("--ranks-per-image=2",)),
    "groups as they come out": ("three", "aligned",
                                ("--ranks-per-image=auto", "parallel.images_per_step=2")),
    "encoder every step": ("three", "aligned", ("parallel.encoder_cache=false",)),
    "torus": ("three", "aligned", (TORUS,)),
    "torus, one image per step, encoder every step": ("three", "aligned",
                                                      (TORUS, "parallel.images_per_step=1",
                                                       "parallel.encoder_cache=false")),
    "torus, two ranks per image": ("three", "aligned", (TORUS, "--ranks-per-image=2")),
    "measured shares": ("three", "aligned", ("parallel.shares=measured",)),
    "measured shares, torus": ("three", "aligned", ("parallel.shares=measured", TORUS)),
}
# The thesis's network takes three times as long, so its stack is small.
OTHERS = {
    "random shift, ddpm": ("three", "aligned",
                           ("sampler.shift.pattern=random", "sampler.method=ddpm")),
    "dpmpp_2m": ("three", "aligned", ("sampler.method=dpmpp_2m", "sampler.steps=4")),
    "ensemble": ("three", "aligned", ("--ensemble=2", "--ranks-per-image=2")),
    "fewer windows than ranks": ("three", "aligned", ("model.window_px=48",)),
    "one window": ("three", "aligned", ("model.window_px=96", "sampler.shift.pattern=none")),
    "bf16": ("three", "aligned", ("parallel.precision=bf16",)),
    "transformer": ("tall", "vit", ()),
    "shared encoder": ("tall", "aligned", ("output.regression=true",)),
    "wrap, random, dpmpp_2m": ("three", "aligned",
                               ("sampler.shift.border=wrap", "sampler.shift.pattern=random",
                                "sampler.method=dpmpp_2m", "sampler.steps=4")),
    "holes": ("holes", "aligned", ()),
    "as the network made it": ("tall", "aligned", ("output.consistent=false",)),
    "coherent, half consistent": ("holes", "aligned",
                                  ("sampler.coherence=2.5", "sampler.method=ddpm",
                                   "sampler.shift.pattern=random", "output.consistent=0.5")),
    "thesis, consistent": ("narrow", "rrdb", ("output.consistent=true",)),
    "thesis": ("narrow", "rrdb", ()),
    "thesis, in groups": ("narrow", "rrdb",
                          ("--ranks-per-image=2", "sampler.shift.pattern=random")),
    "thesis, lr+x_t": ("narrow", "lr+x_t", ("sampler.method=ddpm",)),
    "thesis, synthesis": ("narrow", "x_t", ()),
    "thesis, crop_pad": ("narrow", "rrdb", ("sampler.shift.edge=crop_pad",)),
    "thesis, crop_resize": ("narrow", "rrdb", ("sampler.shift.edge=crop_resize",)),
    "encoder alone": ("three", "encoder", ("output.regression=true",)),
    "rrdb alone": ("three", "rrdb alone", ()),
    "heun": ("three", "aligned", ("sampler.method=heun", "sampler.steps=4")),
    "regression": ("holes", "aligned", ("--preset=regression",)),
    "noise told": ("holes", "aware", ()),
}
TORUS_TOO = ["random shift, ddpm", "dpmpp_2m", "ensemble", "fewer windows than ranks",
             "bf16", "transformer", "shared encoder", "thesis", "holes", "wrap, random, dpmpp_2m",
             "heun", "coherent, half consistent", "thesis, consistent", "regression", "noise told"]
JOBS = SAME_BYTES | OTHERS | {f"{name}, torus": (*OTHERS[name][:2], (*OTHERS[name][2], TORUS))
                              for name in TORUS_TOO}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("sample"))


def write_inputs(folder: Path) -> Path:
    """Stacks and checkpoints by the names in JOBS."""
    write_stack(folder / "three.h5", smooth_stack(3, 40, 36))
    write_stack(folder / "narrow.h5", smooth_stack(2, 40, 20))
    write_stack(folder / "tall.h5", smooth_stack(2, 150, 20, channels=3, dtype="uint8"))
    holes = smooth_stack(2, 61, 37, dtype="float32")
    holes[0, 20:30, 5:9] = np.nan
    write_stack(folder / "holes.h5", holes)
    write_checkpoint(folder / "aligned.safetensors", WINDOW)
    write_checkpoint(folder / "aware.safetensors", WINDOW, "model.noise_aware=true")
    write_checkpoint(folder / "vit.safetensors", WINDOW, *VIT)
    write_checkpoint(folder / "encoder.safetensors", WINDOW, target="encoder")
    write_checkpoint(folder / "rrdb.safetensors", WINDOW, model=THESIS)
    write_checkpoint(folder / "rrdb alone.safetensors", WINDOW, model=THESIS, target="encoder")
    for condition in ("lr+x_t", "x_t"):
        write_checkpoint(folder / f"{condition}.safetensors", WINDOW,
                         f"model.condition_on={condition}", model=THESIS)
    return folder


def command(folder: Path, name: str, output: Path) -> list[str]:
    stack, checkpoint, settings = JOBS[name]
    return arguments(folder / f"{stack}.h5", output, folder / f"{checkpoint}.safetensors",
                     "parallel.threads=1", *settings)


def pixels(path: Path) -> dict[str, bytes]:
    """Every dataset of images in an output."""
    with h5py.File(path) as file:
        return {name: item[()].tobytes() for name, item in file["entry/data"].items()}


@pytest.fixture(scope="module")
def alone(folder):
    """The outputs of one process without launcher, by job."""
    threads, made = torch.get_num_threads(), {}
    for number, name in enumerate(JOBS):
        made[name] = folder / f"alone-{number}.h5"
        assert main(command(folder, name, made[name])) == 0, name
    torch.set_num_threads(threads)
    return made


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_the_number_of_ranks_cannot_be_seen(mpirun, folder, alone, num_ranks):
    jobs = list(JOBS)
    names = {1: ["plain", "ensemble", "thesis", "encoder alone"], 2: jobs, 3: jobs[::3],
             5: list(dict.fromkeys(["fewer windows than ranks", *jobs[1::3]]))}[num_ranks]
    outputs = {name: folder / f"ranks-{num_ranks}-{number}.h5" for number, name in enumerate(names)}
    commands = folder / f"commands-{num_ranks}.json"
    commands.write_text(json.dumps([command(folder, name, outputs[name]) for name in names]))
    finished = mpirun(num_ranks, PROGRAMS / "sample_many.py", commands, timeout_s=LAUNCH_TIMEOUT_S)
    assert (finished.code, finished.err) == (0, ""), finished.err
    assert [name for name in names if pixels(outputs[name]) != pixels(alone[name])] == []
    assert finished.out.count("written: ") == len(names), "rank 0 alone tells"
    if num_ranks == 5:
        assert set(re.findall(r"\n(.* stay idle: .*)\n", finished.out)) == {
            "1 of 5 ranks stay idle: an image has 4 windows for the 5 ranks of a group",
            "2 of 5 ranks stay idle: 3 images for 5 groups of ranks"}
    for output in outputs.values():
        assert_shares_add_up(output)


def assert_shares_add_up(output: Path) -> None:
    with h5py.File(output) as file:
        shares = {name: item[()] for name, item in file["entry/process/timings/share"].items()}
    assert set(shares) == {"unet", "encoder", "exchange", "storage", "other"}, shares
    assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0, shares


def test_what_must_not_change_the_pixels_does_not(alone):
    plain = pixels(alone["plain"])
    assert [name for name in SAME_BYTES if pixels(alone[name]) != plain] == []


def test_the_exchange_cannot_be_seen(alone):
    assert [name for name in TORUS_TOO
            if pixels(alone[name]) != pixels(alone[f"{name}, torus"])] == []


def test_what_must_change_the_pixels_does(alone):
    """Else the comparisons above would compare nothing; the encoder-only models have no noise."""
    distinct = {pixels(alone[name])["sr"] for name in OTHERS
                if "alone" not in name and name != "ensemble"}
    assert len(distinct) == sum("alone" not in name for name in OTHERS) - 1
    images = sr_of(alone["plain"]).reshape(3, -1).astype(float)
    assert np.unique(images, axis=0).shape == images.shape and images.std() > 1000


@pytest.mark.parametrize("damaged", [0, 3])
def test_a_damaged_image_does_not_shift_the_rows_of_those_it_travels_with(mpirun, folder, tmp_path,
                                                                          damaged):
    """Ranks read the rows they need, and share the encoder's work of all images of a step."""
    images = smooth_stack(4, 60, 20)
    stack = write_stack(tmp_path / "in.h5", images, chunks=(1, 60, 20), compression="gzip")
    settings = ("parallel.threads=1", "output.value_range=[0, 65535]", TORUS,
                "parallel.images_per_step=2")
    checkpoint = folder / "aligned.safetensors"
    assert main(arguments(stack, tmp_path / "whole.h5", checkpoint, *settings)) == 0
    damage(stack, damaged)
    words = arguments(stack, tmp_path / "out.h5", checkpoint, *settings)
    finished = mpirun(2, "-m", "swinmpi.cli.sample", *words, timeout_s=LAUNCH_TIMEOUT_S)
    assert finished.code == 3 and f"image {damaged} cannot be read" in finished.err, finished
    others = [k for k in range(4) if k != damaged]
    assert np.array_equal(sr_of(tmp_path / "out.h5")[others], sr_of(tmp_path / "whole.h5")[others])


def test_killed_twice_and_finished_with_another_number_of_ranks(mpirun, folder, alone, tmp_path):
    output = tmp_path / "out.h5"
    killed = command(folder, "plain", output)
    for done, num_ranks, shares in ((1, 3, "[3, 1, 1.5]"), (2, 2, "measured")):
        finished = mpirun(num_ranks, PROGRAMS / "sample_killed.py", "SIGKILL", 1, *killed,
                          "--set", f"parallel.shares={shares}", timeout_s=LAUNCH_TIMEOUT_S)
        assert finished.code not in (0, None) and not output.exists(), finished.err
        with h5py.File(tmp_path / "out.h5.partial") as file:
            assert file["entry/per_image/done"][()].sum() == done
    assert main(killed) == 0
    assert pixels(output) == pixels(alone["plain"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5"]


def test_a_signal_on_one_rank_stops_all_with_75(mpirun, folder, alone, tmp_path):
    output = tmp_path / "out.h5"
    stopped = command(folder, "two ranks per image", output)
    finished = mpirun(2, PROGRAMS / "sample_killed.py", "SIGUSR2", 1, *stopped,
                      "--set", "parallel.images_per_step=1", timeout_s=LAUNCH_TIMEOUT_S)
    assert finished.code == 75 and not output.exists()
    assert finished.err == ("swinmpi: stopped by a signal with 2 images to go; "
                            f"start again to go on from {output}.partial\n")
    assert main(stopped) == 0
    assert pixels(output) == pixels(alone["plain"])


@pytest.mark.parametrize("exchange", ["root", "torus"])
def test_a_signal_is_heard_between_steps_even_of_the_last_image(mpirun, folder, alone, tmp_path,
                                                                exchange):
    output = tmp_path / "out.h5"
    stopped = [*command(folder, "plain", output), "--set", f"parallel.exchange={exchange}"]
    finished = mpirun(2, PROGRAMS / "sample_stopped.py", 2, *stopped, timeout_s=LAUNCH_TIMEOUT_S)
    assert (finished.code, output.exists()) == (75, False), finished.err
    assert finished.err == ("swinmpi: stopped by a signal with 3 images to go; "
                            f"start again to go on from {output}.partial\n")
    assert main(stopped) == 0
    assert pixels(output) == pixels(alone["plain"])
