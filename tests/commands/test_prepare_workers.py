"""swinmpi-prepare with several processes: the same bytes and words as with one, and one line when
one of them dies."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from swinmpi.cli.prepare import main
from tests.commands.test_prepare import SMALL, noise, png16


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Folders of 8 and 16 bit with images that cannot be used, two HDF5 stacks, LR images."""
    monkeypatch.chdir(tmp_path)
    for name in ("8", "16", "lr", "stacks"):
        Path(name).mkdir()
    for number in range(5):
        lr = noise(15, 20, 3, seed=number)
        Image.fromarray(lr).save(f"lr/{number}.png")
        Image.fromarray(lr.repeat(2, 0).repeat(2, 1)).save(f"8/{number}.png")
    Path("8/1a.png").write_text("broken")
    Image.fromarray(noise(31, 40)).save("8/1b.png")  # grey, and of odd sides
    for number in range(4):
        Path(f"16/{number}.png").write_bytes(png16(noise(30, 40, 3, dtype=np.uint16) // 3, 2))
    tifffile.imwrite("16/1a.tif", noise(30, 40).astype(np.float32))
    for name in ("a", "b"):
        with h5py.File(f"stacks/{name}.h5", "w") as file:
            images = noise(6, 40, 30, dtype=np.uint16, seed=ord(name)) / np.float32(7)
            images[2, 3, 4:9] = np.nan
            file.create_dataset("x", data=images, chunks=(1, 40, 30), compression="gzip")
    return tmp_path


def prepared(words, num_workers, capsys):
    """(the bytes, the exit code, what was said) of a run with so many processes."""
    capsys.readouterr()
    code = main([*words, "--output", "out.h5", "--overwrite", "--workers", str(num_workers)])
    said = capsys.readouterr()
    return Path("out.h5").read_bytes(), code, said.out, said.err


@pytest.mark.parametrize(("words", "code"), [
    (["8", *SMALL], 3), (["16", *SMALL], 3), (["stacks", *SMALL], 0), (["8", "--lr-only"], 3),
    (["stacks", "--lr-only", "--set=data.photons=50"], 0),
    (["16", "--set=data.photons=[5,50]", "--set=data.psf_px=1", *SMALL], 3),
], ids=["8 bit", "16 bit", "stacks", "lr only", "lr of stacks", "degraded"])
def test_any_number_of_processes_gives_the_same(inputs, capsys, words, code):
    alone = prepared(words, 1, capsys)
    assert alone[1] == code
    for num_workers in (2, 5):
        assert prepared(words, num_workers, capsys) == alone


def test_own_lr_images_by_several_processes(inputs, capsys):
    for name in ("8/1a.png", "8/1b.png"):
        Path(name).unlink()
    words = ["8", "--lr", "lr", *SMALL]
    alone = prepared(words, 1, capsys)
    assert alone[1] == 0 and prepared(words, 3, capsys) == alone


def test_a_dry_run_tells_how_many(inputs, capsys):
    assert main(["8", "--output", "out.h5", *SMALL, "--dry-run", "--workers", "100"]) == 0
    assert "workers  7, each with one image at a time" in capsys.readouterr().out
    for wrong in ("0", "-1", "two", "2000", ""):
        with pytest.raises(SystemExit) as ended:
            main(["8", "--output", "out.h5", "--workers", wrong])
        assert ended.value.code == 2
        assert "a whole number from 1 to 1024" in capsys.readouterr().err


@pytest.mark.slow
class TestEnds:
    @pytest.fixture
    def running(self, inputs):
        """A run that would take hours, from the moment when it has begun to cut."""
        for name in Path("8").glob("1?.png"):
            name.unlink()
        Path("8/0.png").write_text("broken")
        process = subprocess.Popen(
            [sys.executable, "-m", "swinmpi.cli.prepare", "8", "--output", "out.h5", *SMALL,
             "--set=data.crops_per_image=100000000", "--workers=2"], stderr=subprocess.PIPE,
            text=True, start_new_session=True)
        assert "skipped 0.png" in process.stderr.readline()
        yield process
        process.kill()

    def children(self, process):
        return [int(pid) for pid in
                Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]

    def assert_gone(self, pids):
        for pid in pids:
            status = Path(f"/proc/{pid}/stat")
            assert not status.exists() or " Z " in status.read_text()

    def test_a_process_that_is_killed(self, running):
        children = self.children(running)
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 1 and said.count("\n") == 1
        assert "ended by signal 9" in said and "nothing was written" in said
        assert not list(Path().glob("out*"))
        self.assert_gone(children)

    def test_a_signal_to_all_of_them(self, running):
        children = self.children(running)
        os.killpg(running.pid, signal.SIGTERM)
        _, said = running.communicate(timeout=60)
        assert (running.returncode, said) == (143,
                                              "swinmpi: ended by SIGTERM; nothing was written\n")
        assert not list(Path().glob("out*"))
        self.assert_gone(children)

    def test_after_a_kill_the_output_is_free_at_once(self, running):
        children = self.children(running)
        running.kill()
        running.wait(timeout=60)
        again = subprocess.run([sys.executable, "-m", "swinmpi.cli.prepare", "8", "--output",
                                "out.h5", *SMALL], capture_output=True, text=True, timeout=300)
        assert again.returncode == 3 and "skipped 0.png" in again.stderr, again.stderr
        self.assert_gone(children)
