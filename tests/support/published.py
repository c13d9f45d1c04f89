"""The published network as facts: names and shapes of its state dict, deterministic weights for
them, and what it answers with those of seed 1 (tests/data/published)."""
import json
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "data" / "published"


def layout(scale: int) -> dict[str, list[int]]:
    """Shapes by published name."""
    return json.loads((FOLDER / "layout.json").read_text())[f"x{scale}"]


def weights(scale: int, seed: int = 1) -> dict[str, Tensor]:
    """See `drawn`; the dictionary is the caller's, its tensors are shared."""
    return dict(drawn(scale, seed))


@lru_cache
def drawn(scale: int, seed: int) -> dict[str, Tensor]:
    """Matrices and kernels N(0, 1 / fan_in), weights of norms 1 + N / 10, biases N / 10."""
    made = {}
    for name, shape in layout(scale).items():
        random = np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))
        values = random.standard_normal(shape, dtype=np.float32)
        if len(shape) > 1:
            values /= np.float32(np.sqrt(np.prod(shape[1:])))
        else:
            values *= np.float32(0.1)
            values += name.endswith("weight")
        made[name] = torch.from_numpy(values)
    return made


def answers(scale: int) -> dict[str, Tensor]:
    """x (2, 3, 32, 32), t (2,), condition (2, 4, 32, 32); output, and unconditional without
    the condition."""
    with np.load(FOLDER / "outputs_seed1.npz") as stored:
        return {name.removeprefix(f"x{scale}_"): torch.from_numpy(stored[name])
                for name in stored.files if name.startswith(f"x{scale}_")}
