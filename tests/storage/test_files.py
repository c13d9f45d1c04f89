"""What is said of a place that cannot be written, word by word, and files written whole."""
import errno
import os

import pytest

from swinmpi.errors import OutputError, StackError
from swinmpi.storage import pair_writing
from swinmpi.storage.files import as_output_error, check_place, system_reason, write_atomically
from swinmpi.storage.outputs import output


def said(path, words, overwrite=False, input_path=None) -> str:
    with pytest.raises(OutputError) as caught:
        check_place(path, words, overwrite, input_path)
    return str(caught.value)


def test_what_prepare_says_of_its_output(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "out.h5"
    folder.mkdir()
    file.touch()
    assert said(file / "deep" / "out.h5", pair_writing.PLACE) == (
        f"{file}/deep/out.h5: {file} is no folder; choose another --output")
    assert said(tmp_path / "out.png", pair_writing.PLACE) == (
        f"{tmp_path}/out.png: would be an HDF5 file under the name of another format; name it .h5")
    check_place(tmp_path / "no" / "out.h5", pair_writing.PLACE, overwrite=False)
    assert said(folder, pair_writing.PLACE, overwrite=True) == (
        f"{folder}: expected a file name, got a folder")
    assert said(file, pair_writing.PLACE) == (
        f"{file}: exists already; give --overwrite to replace it")
    check_place(file, pair_writing.PLACE, overwrite=True)
    check_place(tmp_path / "new.h5", pair_writing.PLACE, overwrite=False)


def test_what_sample_says_of_its_output(tmp_path):
    folder, file = tmp_path / "{folder}", tmp_path / "in.h5"
    folder.mkdir()
    file.touch()
    check_place(tmp_path / "no" / "out.h5", output.PLACE, overwrite=False, input_path=file)
    assert said(folder, output.PLACE, overwrite=True) == (
        f"{folder}: expected a file name, got a folder or a device; use --output FILE")
    assert said(file, output.PLACE, input_path=file, overwrite=True) == (
        f"{file}: would overwrite the input {file}; choose another --output")
    assert said(file, output.PLACE, input_path=tmp_path / "other.h5") == (
        f"{file}: exists already; choose another --output, or replace it with --overwrite")
    check_place(file, output.PLACE, overwrite=True, input_path=tmp_path / "other.h5")


def test_an_error_of_writing_becomes_one_line(tmp_path):
    with pytest.raises(OutputError, match=r": x \(No space left on device\); make room$") as caught:
        with as_output_error(tmp_path, "x ({reason})", "make room"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.__suppress_context__
    with pytest.raises(OutputError, match=r": x: too short; again$"):
        with as_output_error(tmp_path, "x: {reason}", "again", reason=system_reason):
            raise OSError("Can't read data (too short)")


@pytest.mark.parametrize("other", [StackError("no stack"), KeyError("x"), KeyboardInterrupt()])
def test_other_errors_pass(tmp_path, other):
    with pytest.raises(type(other)) as caught, as_output_error(tmp_path, "x", "y"):
        raise other
    assert caught.value is other


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        write_atomically(path, b"new")
    assert str(caught.value) == (
        f"{path}: cannot write: No space left on device; make room or choose another folder")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
