"""What pictures say besides their pixels, on the finer grid."""
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from swinmpi.images import png, tiff
from swinmpi.images.pictures import Pixels, read_page, read_pages

COLOUR = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
TRUE_COLOURS = b"\x09\x10\0\1"  # BT.2020, PQ, as of cICP


def enlarged(path):
    """The SR picture of `path` with its details: each pixel four times."""
    pixels = np.kron(read_page(path).colour, np.ones((2, 2, 1), np.uint8))
    made = path.with_name(f"sr-{path.name}")
    if path.suffix == ".tif":
        with made.open("w+b") as file:
            details = tiff.read_details(path).scaled(2)
            tiff.write_tiff(file, [Pixels(pixels)], pixels.nbytes, details)
    else:
        details = png.read_details(path, 2)
        made.write_bytes(b"".join(png.encode_png(Pixels(pixels), details)))
    return made


def test_texts_and_colours_of_a_png(tmp_path):
    words = PngInfo()
    words.add_text("Author", "Jo")
    words.add_itxt("Title", "Gr\u00f6\u00dfe")
    words.add_itxt("XML:com.adobe.xmp", "<tiff:Orientation>6</tiff:Orientation>")
    words.add_text("Raw profile type exif", "orientation")
    Image.fromarray(COLOUR).save(tmp_path / "x.png", pnginfo=words)
    content = (tmp_path / "x.png").read_bytes()
    chunk = struct.pack(">I", 4) + b"cICP" + TRUE_COLOURS
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    (tmp_path / "x.png").write_bytes(content[:33] + chunk + content[33:])
    made = enlarged(tmp_path / "x.png")
    assert b"cICP" + TRUE_COLOURS in made.read_bytes()
    with Image.open(made) as image:
        image.load()
        assert image.text == {"Author": "Jo", "Title": "Gr\u00f6\u00dfe"}


def test_focal_plane_resolution_is_of_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0xA20E] = 1000.0
    Image.fromarray(COLOUR).save(tmp_path / "x.png", exif=exif)
    with Image.open(enlarged(tmp_path / "x.png")) as image:
        assert image.getexif().get_ifd(0x8769)[0xA20E] == 2000


@pytest.mark.parametrize("dtype, white", [("uint8", 1), ("uint16", 1), ("int16", 0),
                                          ("float32", 0)])
def test_white_zero_stays_white(tmp_path, dtype, white):
    image = np.arange(48).reshape(6, 8).astype(dtype)
    tifffile.imwrite(tmp_path / "x.tif", image, photometric="miniswhite")
    with tifffile.TiffFile(enlarged(tmp_path / "x.tif")) as file:
        assert file.pages[0].photometric == white
        most = np.iinfo(dtype).max if white else 0
        made = file.asarray()[::2, ::2]
        np.testing.assert_array_equal(made, most - image if white else image)


def test_no_resolution_is_made_up(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "x.tif")
    with tifffile.TiffFile(enlarged(tmp_path / "x.tif")) as file:
        assert file.pages[0].tags["ResolutionUnit"].value == 1


def test_what_gdal_calls_no_data_is_told(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", COLOUR[..., 0].astype("f4"),
                     extratags=[(42113, "s", 0, "-9999", True)])
    assert read_pages(tmp_path / "x.tif")[0].no_data == ("-9999",)
