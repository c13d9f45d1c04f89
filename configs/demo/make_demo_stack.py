"""Build swinmpi/demo/demo_x2.h5: 8 crops of free photographs, HR 256 x 256 and LR
128 x 128, in NeXus.

    python configs/demo/make_demo_stack.py swinmpi/demo/demo_x2.h5

The photographs are those that scikit-image's package holds; no network is used and the result
is the same every time.
"""
import sys
from dataclasses import dataclass

import h5py
import numpy as np
from skimage import data

from swinmpi.images.imresize import imresize

SIDE_PX = 256
SCALE = 2
# the defocused background of "astronaut" has 0.03, the soft photograph "retina" 0.04
MIN_SHARPNESS = 0.06
MIN_CONTRAST = 25


@dataclass(frozen=True)
class Crop:
    """A square of a photograph; `photograph` names the function of skimage.data, top and left
    are pixels in it."""

    photograph: str
    top: int
    left: int
    title: str
    author: str
    licence: str
    source: str

    def pixels(self) -> np.ndarray:
        """(256, 256, 3) uint8."""
        whole = getattr(data, self.photograph)()
        return whole[self.top:self.top + SIDE_PX, self.left:self.left + SIDE_PX]


ASTRONAUT = dict(author="NASA", licence="public domain",
                 source="NASA Great Images database, https://flic.kr/p/r9qvLn")
COFFEE = dict(author="Rachel Michetti", licence="CC0",
              source="scikit-image, courtesy of Pikolo Espresso Bar")
CROPS = [
    Crop("astronaut", 0, 96, "Eileen Collins", **ASTRONAUT),
    Crop("astronaut", 256, 0, "mission patch", **ASTRONAUT),
    Crop("astronaut", 256, 256, "helmet", **ASTRONAUT),
    Crop("coffee", 144, 0, "saucer on wood", **COFFEE),
    Crop("coffee", 144, 256, "spoon", **COFFEE),
    Crop("chelsea", 20, 112, "Chelsea the cat", author="Stefan van der Walt", licence="CC0",
         source="scikit-image"),
    Crop("rocket", 171, 192, "Falcon 9 with DSCOVR", author="SpaceX", licence="public domain",
         source="https://www.flickr.com/photos/spacexphotos/16511594820"),
    Crop("hubble_deep_field", 430, 640, "Hubble eXtreme Deep Field", author="NASA (HubbleSite)",
         licence="public domain",
         source="http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/"),
]


def main(path: str) -> None:
    hr = np.stack([crop.pixels() for crop in CROPS])
    for crop, image in zip(CROPS, hr, strict=True):
        check_crop(crop, image)
    lr = np.stack([imresize(image, scale=1 / SCALE) for image in hr])
    with h5py.File(path, "w") as file:
        write_stack(file, lr, hr)


def check_crop(crop: Crop, image: np.ndarray) -> None:
    """Refuse a crop that is nearly empty, or so soft that its finest octave holds
    nothing to restore."""
    luma = image @ [0.299, 0.587, 0.114]
    contrast, sharpness = luma.std(), sharpness_of(luma)
    print(f"{crop.photograph:18} y {crop.top:3} x {crop.left:3}  contrast {contrast:5.1f}  "
          f"sharpness {sharpness:.3f}")
    if contrast < MIN_CONTRAST or sharpness < MIN_SHARPNESS:
        sys.exit(f"{crop.title}: expected contrast >= {MIN_CONTRAST} and sharpness >= "
                 f"{MIN_SHARPNESS}; choose another")


def sharpness_of(luma: np.ndarray) -> float:
    """Mean spectral power in the octave that 2x shrinking removes (1/4..1/2 cycles/px),
    over the octave below it."""
    window = np.hanning(SIDE_PX)
    power = np.abs(np.fft.fft2((luma - luma.mean()) * np.outer(window, window))) ** 2
    frequency = np.fft.fftfreq(SIDE_PX)
    radius = np.hypot(frequency[:, None], frequency)
    return (power[(radius >= 1 / 4) & (radius < 1 / 2)].mean()
            / power[(radius >= 1 / 8) & (radius < 1 / 4)].mean())


def write_stack(file: h5py.File, lr: np.ndarray, hr: np.ndarray) -> None:
    """NeXus: the default signal is what an instrument saw (LR); the truth lies beside it under
    /entry/reference."""
    file.attrs["default"] = "entry"
    entry = group(file, "entry", "NXentry", default="data")
    entry["title"] = "swinmpi demo: 8 crops of public-domain and CC0 photographs"
    for name, signal, images in [("data", "lr", lr), ("reference", "hr", hr)]:
        axes = ["image", "row", "column", "channel"]
        stack = group(entry, name, "NXdata", signal=signal, axes=axes).create_dataset(
            signal, data=images, chunks=(1, *images.shape[1:]), compression="gzip",
            compression_opts=9, shuffle=True)
        stack.attrs.update(long_name="photographs", interpretation="rgb-image")
    entry["reference"].attrs["degradation"] = (
        f"lr = MATLAB imresize of hr by 1/{SCALE}: bicubic, antialiased, uint8")
    photographs = group(entry, "photographs", "NXcollection")
    for field in ("photograph", "title", "author", "licence", "source"):
        photographs[field] = [getattr(crop, field) for crop in CROPS]
    photographs["top_left_px"] = [(crop.top, crop.left) for crop in CROPS]


def group(parent: h5py.Group, name: str, nx_class: str, **attributes) -> h5py.Group:
    made = parent.create_group(name)
    made.attrs.update(NX_class=nx_class, **attributes)
    return made


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
