"""LPIPS, a learned perceptual distance. Its AlexNet backbone is read from a file."""
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from swinmpi.errors import CheckpointError

BACKBONE = "alexnet-owt-7be5be79.pth"
BACKBONE_URL = f"https://download.pytorch.org/models/{BACKBONE}"
SMALLEST_PX = 31  # below, AlexNet's second pooling has nothing left to pool

Distance = Callable[[np.ndarray, np.ndarray], float]


def default_backbone() -> Path:
    """Where torch.hub keeps AlexNet's weights: under TORCH_HOME, else the user's cache.

    The file may not exist; it is never downloaded.
    """
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONE


def load_lpips(backbone: Path) -> Distance:
    """A function of two images (H, W) or (H, W, C) in -1..1 -> LPIPS (0: alike, small images: NaN).

    NaN pixels are taken from the other image, or as 0 where both lack them. Raises CheckpointError
    when `backbone` is missing or not the state dict of torchvision's AlexNet.
    """
    weights = read_state_dict(backbone, "AlexNet's weights", BACKBONE_URL)
    network = make_network()
    fill_backbone(network.net, weights, backbone)
    network.requires_grad_(False).eval()

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        if min(a.shape[:2]) < SMALLEST_PX:
            return float("nan")
        a, b = np.where(np.isnan(a), b, a), np.where(np.isnan(b), a, b)
        with torch.inference_mode():
            return network(as_rgb(a), as_rgb(b)).item()

    return distance


def make_network() -> torch.nn.Module:
    """LPIPS v0.1 with its own calibration and an AlexNet still to be filled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by its old names
        import lpips
        return lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)


def fill_backbone(alexnet: torch.nn.Module, weights: dict, backbone: Path) -> None:
    """Copy torchvision's `features.N.*` into lpips's slices, whose layers keep the number N."""
    for name, parameter in alexnet.named_parameters():
        theirs = f"features.{name.partition('.')[2]}"
        expected, came = tuple(parameter.shape), tuple(getattr(weights.get(theirs), "shape", ()))
        if came != expected:
            raise CheckpointError(f"{backbone}: expected torchvision's AlexNet with {theirs} of "
                                  f"shape {expected}, got {came or 'none'}; fetch {BACKBONE_URL}")
        parameter.data.copy_(weights[theirs])


def read_state_dict(path: Path, what: str, url: str) -> dict:
    """Names and tensors of a file of weights; nothing but tensors is unpickled.

    what, url: what it should be, and where that is found. CheckpointError when it is no such file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: expected {what}, found no file; "
                              f"fetch {url} into that folder")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged file
        raise CheckpointError(f"{path}: not a readable weights file ({type(error).__name__}); "
                              f"fetch {url} again") from None
    return weights if isinstance(weights, dict) else {}


def as_rgb(image: np.ndarray) -> torch.Tensor:
    """(H, W) or (H, W, 1 or 3), NaN as 0 -> (1, 3, H, W) float32."""
    x = torch.from_numpy(np.nan_to_num(image, nan=0.0).astype(np.float32))
    x = x[..., None] if x.ndim == 2 else x
    return x.permute(2, 0, 1).expand(3, -1, -1)[None]
