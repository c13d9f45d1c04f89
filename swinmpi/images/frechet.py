"""FID (Heusel et al. 2017): how far the features of a set of images are from those of the true
ones. Inception is torch-fidelity's, its weights are read from a file."""
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from swinmpi.errors import CheckpointError
from swinmpi.images.perceptual import as_rgb, read_state_dict

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"
LAYER = "2048"

Features = Callable[[np.ndarray], np.ndarray]
"""An image (H, W) or (H, W, C) in -1..1 -> float64 (2048,)."""


def default_inception() -> Path:
    """Where torch.hub keeps Inception's weights. The file may not exist; it is never downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


def load_inception(weights: Path) -> Features:
    """What FID compares, of one image; NaN pixels count as middle grey.

    Raises CheckpointError where torch-fidelity is not installed, or `weights` is missing or not the
    state dict of its Inception.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise CheckpointError("torch-fidelity is not installed; "
                              "pip install 'swinmpi[fid]'") from None
    # Its constructor unpickles whatever it is given: it gets what was read as tensors only.
    safe = io.BytesIO()
    torch.save(read_state_dict(weights, "Inception's weights", WEIGHTS_URL), safe)
    safe.seek(0)
    try:
        network = FeatureExtractorInceptionV3("swinmpi", [LAYER], safe)
    except (RuntimeError, TypeError, AttributeError):
        raise CheckpointError(f"{weights}: expected the weights of torch-fidelity's Inception, "
                              f"got others; fetch {WEIGHTS_URL}") from None

    def features(image: np.ndarray) -> np.ndarray:
        pixels = (as_rgb(image).clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
        with torch.inference_mode():
            return network(pixels)[0][0].double().numpy()

    return features
