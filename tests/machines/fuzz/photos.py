"""The sound pictures that are damaged: every format, depth and way to store it."""
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from swinmpi.images.pictures import Pixels
from swinmpi.images.png import PngDetails, encode_png
from tests.support.sampling import smooth_stack

PHOTOS, SOUND = "photos", "sound.png"
DAMAGED_PHOTOS = ("colour.png", "deep.png", "palette.png", "alpha.png", "a.jpg", "a.webp",
                  "plain.tif", "pages.tif", "planar.tif", "packed.tif", "tiled.tif", "float.tif",
                  "imagej.tif", "ome.tif", "bilevel.tif")


def write_photos(folder: Path) -> None:
    """Of 16 x 20 px, a few KiB each."""
    folder.mkdir()
    colour, deep = smooth_stack(2, 16, 20, 3, "uint8")[0], smooth_stack(2, 16, 20, 3, seed=1)
    grey, pages = smooth_stack(1, 16, 20, 1, "uint8")[0], smooth_stack(3, 16, 20, seed=2)
    alpha = np.dstack([colour, grey])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(folder / SOUND)
    Image.fromarray(colour).save(folder / "colour.png", dpi=(72, 72), exif=exif)
    Image.fromarray(alpha).save(folder / "alpha.png")
    Image.fromarray(colour).convert("P").save(folder / "palette.png", transparency=0)
    (folder / "deep.png").write_bytes(b"".join(encode_png(Pixels(deep[0]), PngDetails())))
    Image.fromarray(colour).save(folder / "a.jpg", exif=exif, dpi=(72, 72))
    Image.fromarray(alpha).save(folder / "a.webp", exif=exif)
    Image.fromarray(grey > 99).save(folder / "bilevel.tif", compression="group4")
    tifffile.imwrite(folder / "plain.tif", grey, photometric="minisblack")
    tifffile.imwrite(folder / "pages.tif", pages, photometric="minisblack", byteorder=">")
    tifffile.imwrite(folder / "planar.tif", np.moveaxis(deep[0], -1, 0), photometric="rgb",
                     planarconfig="separate")
    tifffile.imwrite(folder / "packed.tif", deep[0], photometric="rgb", compression="zlib",
                     predictor=True, rowsperstrip=4)
    tifffile.imwrite(folder / "tiled.tif", deep[0], photometric="rgb", tile=(16, 16),
                     compression="zlib")
    tifffile.imwrite(folder / "float.tif", pages[0].astype("f4"), photometric="minisblack")
    tifffile.imwrite(folder / "imagej.tif", pages, imagej=True, resolution=(3, 3),
                     metadata={"unit": "um", "axes": "ZYX"})
    tifffile.imwrite(folder / "ome.tif", pages, ome=True, photometric="minisblack",
                     metadata={"axes": "ZYX", "PhysicalSizeX": 0.3})
