"""Saves states into the folder given until it is killed; says each update that
is safely on the disk."""
import sys
from pathlib import Path

import torch

from swinmpi.storage.checkpoint import CheckpointFolder

folder = CheckpointFolder(Path(sys.argv[1]), keep_last=2)
folder.create()
for update in range(1, 10**6):
    tensors = {name: torch.full((100, 100), float(update)) for name in "ab"}
    folder.save(update, tensors, tensors, {"update": update, "moments": tensors},
                {"update": update})
    folder.save_best(tensors, {"update": update})
    print(update, flush=True)
