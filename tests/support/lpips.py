"""AlexNet weights for LPIPS where there is no network: random ones in the real one's file."""
from pathlib import Path

import torch
import torchvision

from swinmpi.images.perceptual import BACKBONE


def write_backbone(torch_home: Path) -> Path:
    """A file of random weights under the name and in the place of the real one;
    returns its path."""
    folder = torch_home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    features = torchvision.models.alexnet(weights=None).features.state_dict()
    named = {f"features.{name}": value for name, value in features.items()}
    torch.save(named, folder / BACKBONE)
    return folder / BACKBONE
