"""What lies at a path where something else was expected, in words, and what was probably meant."""
import difflib
from pathlib import Path

HEAD_BYTES = 512
# (offset, first bytes) -> what it is, and what to do
SIGNATURES = {
    (0, b"\x89HDF\r\n\x1a\n"): "an HDF5 file",
    (0, b"\x89PNG"): "a PNG picture", (0, b"\xff\xd8\xff"): "a JPEG picture",
    (8, b"WEBP"): "a WebP picture", (0, b"II*\0"): "a TIFF", (0, b"MM\0*"): "a TIFF",
    (0, b"II+\0"): "a TIFF", (0, b"MM\0+"): "a TIFF",
    (0, b"GIF8"): "a GIF; save it as PNG", (0, b"BM"): "a BMP; save it as PNG",
    (0, b"\x1f\x8b"): "a gzip file; unpack it with gunzip",
    (0, b"BZh"): "a bzip2 file; unpack it", (0, b"\xfd7zXZ"): "an xz file; unpack it",
    (0, b"\x28\xb5\x2f\xfd"): "a zstd file; unpack it",
    (0, b"7z\xbc\xaf"): "a 7z archive; unpack it", (257, b"ustar"): "a tar archive; unpack it",
    (0, b"PK\3\4"): "a zip archive (as .npz is); unpack it, or put its arrays into HDF5",
    (0, b"\x93NUMPY"): "a NumPy array; put it into HDF5",
    (0, b"MATLAB 5.0"): "a MATLAB file before version 7.3; save it with -v7.3",
    (0, b"SIMPLE  ="): "a FITS file; convert it", (0, b"CDF"): "a netCDF 3 file; convert it to "
    "netCDF 4", (0, b"\x0e\x03\x13\x01"): "an HDF4 file; convert it",
    (128, b"DICM"): "a DICOM file; convert it", (208, b"MAP "): "an MRC file; convert it",
    (0, b"%PDF"): "a PDF; save its pictures",
    (0, b"version https://git-lfs"): "a pointer of Git LFS; fetch the file with git lfs pull",
    (0, b"<!DOCTYPE"): "a web page; download the file again",
    (0, b"<html"): "a web page; download the file again"}


def what_is(path: Path) -> str:
    """A few words on what lies at `path`; where nothing does, the name that was probably meant."""
    if path.is_dir():
        return "a folder"
    if not path.exists():
        return "nothing there" + meant(path)
    if not path.is_file():
        return "a device"
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    found = [words for (offset, mark), words in SIGNATURES.items()
             if head.startswith(mark, offset)]
    return found[0] if found else "another kind of file" if head else "an empty file"


def meant(path: Path) -> str:
    """; did you mean NAME? Empty where nothing is near."""
    text = str(path)
    for above in path.parents:  # file.h5/entry/data
        if above.is_file():
            return f"; did you mean {above}::{text[len(str(above)):]}?"
    file, colon, inside = text.partition(":")
    if colon and Path(file).is_file():
        return f"; did you mean {file}::{inside}?"
    name = nearest(path.name, names_in(path.parent))
    return f"; did you mean {path.parent / name}?" if name else ""


def nearest(name: str, names: list[str]) -> str | None:
    """The name that is most like `name`, whatever its case; None where none is."""
    by_case = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower(), by_case, 1)
    return by_case[found[0]] if found else None


def names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return []
