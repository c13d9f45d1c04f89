"""What lies where an HDF5 file was expected, and what was probably meant."""
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from swinmpi.errors import StackError
from swinmpi.storage.address import open_file
from tests.support.sampling import smooth_stack, write_stack


def written(write) -> bytes:
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def zipped(file) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", "y")


IMAGE = np.zeros((4, 4), np.uint8)
KINDS = {
    "an empty file": b"", "another kind of file": b"words", "a gzip file": gzip.compress(b"x"),
    "a zip archive": written(zipped), "a NumPy array": written(lambda file: np.save(file, IMAGE)),
    "a tar archive": written(lambda file: tarfile.open(fileobj=file, mode="w").addfile(
        tarfile.TarInfo("x"))),
    "a PNG picture": written(lambda file: Image.fromarray(IMAGE).save(file, "PNG")),
    "a WebP picture": written(lambda file: Image.fromarray(IMAGE).save(file, "WEBP")),
    "a TIFF": written(lambda file: tifffile.imwrite(file, IMAGE)),
    "a FITS file": b"SIMPLE  =                    T", "a netCDF 3 file": b"CDF\x01",
    "a MATLAB file before": b"MATLAB 5.0 MAT-file", "a pointer of Git LFS":
    b"version https://git-lfs.github.com/spec/v1", "a web page": b"<!DOCTYPE html>"}


@pytest.mark.parametrize("words, content", KINDS.items(), ids=KINDS)
def test_a_file_that_is_no_hdf5_is_named(tmp_path, words, content):
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(StackError, match=f"x.h5: expected an HDF5 file, got {words}"):
        open_file(tmp_path / "x.h5")


@pytest.mark.parametrize("name, meant", [
    ("scn.h5", "scan.h5"), ("SCAN.H5", "scan.h5"), ("scan.h5/entry/data", "scan.h5::/entry/data"),
    ("scan.h5:/entry/data", "scan.h5::/entry/data"), ("unlike", None)])
def test_the_name_that_was_meant(tmp_path, name, meant):
    write_stack(tmp_path / "scan.h5", smooth_stack(1, 4, 4))
    with pytest.raises(StackError) as refused:
        open_file(tmp_path / name)
    wanted = f"nothing there; did you mean {tmp_path}/{meant}?" if meant else "got nothing there"
    assert str(refused.value).endswith(wanted)
