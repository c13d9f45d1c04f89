"""Folders of pictures that were disturbed: journals that are cut or lie, pages that wait, files
where folders should be."""
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from swinmpi.cli.sample import main
from swinmpi.errors import OutputError
from swinmpi.images.pictures import read_page, read_pages
from swinmpi.storage.pictures.journal import NAME, read_memory
from swinmpi.storage.pictures.store import PictureStore
from tests.support.sampling import arguments, smooth_stack, write_checkpoint

LIES = ['{"format": 1, "settings": 5}', '[]', '5', '"x"', "\x00", "[" * 9000,
        '{"format": 2, "settings": {}}', '{"format": 1, "range": {"<u2": "ab"}}',
        '{"format": 1, "range": {"<u2": [1]}}', '{"format": 1, "range": {"<u2": [5, 1]}}',
        '{"format": 1, "range": {"<u2": [0, NaN]}}', '{"format": 1, "range": {"<u2": 7}}',
        '{"format": 1, "range": {"<u2": ["0", "1"]}}', '{"format": 1, "page": ["a.tif"]}',
        '{"format": 1, "page": ["a.tif", 0]}', '{"format": 1, "picture": "a.png"}',
        '{"format": 1, "picture": ["a.png"], "input": "x", "bytes": 1, "figures": []}',
        '{"format": 1, "picture": "a.png", "input": "x", "bytes": "1", "figures": []}',
        '{"format": 1, "writing": {}}']


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("in") / "photos"
    folder.mkdir()
    Image.fromarray(smooth_stack(2, 8, 10, 3, "uint8")[0]).save(folder / "a.png")
    tifffile.imwrite(folder / "b.tif", smooth_stack(2, 8, 10), photometric="minisblack")
    return folder


@pytest.fixture(scope="module")
def made(photos, checkpoint, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("out") / "sr"
    assert main(arguments(photos, output, checkpoint)) == 0
    return output


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file() and path.name != NAME}


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("swinmpi: "), lines
    return lines[-1]


@pytest.mark.parametrize("lie", LIES)
def test_a_journal_that_lies_is_refused(tmp_path, lie):
    (tmp_path / NAME).write_text(f"{lie}\n")
    with pytest.raises(OutputError, match="is damaged, or not the journal"):
        read_memory(tmp_path)


def test_a_journal_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(OutputError, match="it is no file"):
        read_memory(tmp_path)


def test_a_journal_cut_anywhere_is_gone_on_with_or_refused(photos, made, checkpoint, tmp_path,
                                                            capsys):
    """Pictures that are there and that the journal does not know are not replaced unasked."""
    whole = (made / NAME).read_bytes()
    lines = [at + 1 for at, letter in enumerate(whole) if letter == ord("\n")]
    for number, end in enumerate((5, lines[0], lines[2] + 7, lines[4], len(whole) - 3)):
        output = tmp_path / str(number)
        shutil.copytree(made, output)
        (output / NAME).write_bytes(whole[:end])
        code = main(arguments(photos, output, checkpoint))
        assert code == 0 or code == 2 and "exists already" in one_line(capsys)
        assert pictures_in(output) == pictures_in(made)


def test_pages_that_were_all_done_appear_at_the_next_start(photos, made, checkpoint, tmp_path,
                                                           monkeypatch):
    """As after a kill between the last page and the file."""
    def interrupt(*_):
        raise KeyboardInterrupt

    command = arguments(photos / "b.tif", tmp_path / "sr", checkpoint)
    with monkeypatch.context() as patched:
        patched.setattr(PictureStore, "_publish", interrupt)
        assert main(command) == 130
    assert len(list(tmp_path.glob("sr/.partial/*.npy"))) == 2
    assert main(command) == 0
    assert pictures_in(tmp_path / "sr") == {"b.tif": (made / "b.tif").read_bytes()}


def test_a_file_where_a_folder_should_be_is_refused(photos, checkpoint, tmp_path, capsys):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    shutil.copy(photos / "a.png", tmp_path / "in" / "deep")
    (tmp_path / "sr").mkdir()
    (tmp_path / "sr" / "deep").write_bytes(b"somebody's")
    for more in ([], ["--dry-run"]):
        assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint) + more) == 2
        assert "deep: is no folder, where" in one_line(capsys)
    assert (tmp_path / "sr" / "deep").read_bytes() == b"somebody's"


def test_a_link_that_leads_nowhere_is_named(photos, checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    shutil.copy(photos / "a.png", tmp_path / "in")
    (tmp_path / "in" / "lost.png").symlink_to("nothing.png")
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint)) == 3
    assert "lost.png" in one_line(capsys) and (tmp_path / "sr" / "a.png").exists()


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {}, {"tile": (16, 16)},
                                     {"compression": "zlib", "rowsperstrip": 4}], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_tiff_that_tells_of_more_rows_than_it_holds_is_not_black_there(tmp_path, dtype, options):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.full((16, 20), 7, dtype), photometric="minisblack", **options)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags["ImageLength"]
        place, form = tag.valueoffset, {3: "<H", 4: "<I"}[int(tag.dtype)]
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, place, 400)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="strips or tiles are missing|failed to read"):
        read_page(path)


def test_a_small_file_that_claims_a_huge_picture_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.webp"
    Image.new("RGB", (16000, 2000)).save(path, lossless=True)
    with pytest.raises(ValueError, match="no picture is packed like that"):
        read_pages(path)
