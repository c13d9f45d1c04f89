"""Samples by every exchange under contract on the ranks of this launch; argv[1]: where rank 0
writes digests by name."""
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))

from swinmpi.parallel.launch import start_mpi  # noqa: E402
from tests.support.exchanging import (  # noqa: E402
    EXCHANGES_UNDER_TEST,
    FAMILIES,
    SAMPLERS,
    digest,
    joined,
    sample,
)

torch.set_num_threads(1)
cases = [("bands", sampler) for sampler in SAMPLERS] + [(family, "ddim")
                                                        for family in FAMILIES if family != "bands"]
with start_mpi() as world:
    digests = {}
    for family, sampler in cases:
        for exchange in EXCHANGES_UNDER_TEST:
            parts = sample(world, family, sampler, exchange)
            everybodys = [parts] if world.size == 1 else world.comm.gather(parts, root=0)
            if world.is_root:
                digests[f"{family}; {sampler}; {exchange}"] = digest(joined(everybodys))
    # Unequal shares, and tensors handed to MPI as they are.
    world.weights, world.direct = tuple(range(1, world.size + 1)), True
    for exchange in EXCHANGES_UNDER_TEST:
        parts = sample(world, "bands", "heun", exchange)
        everybodys = [parts] if world.size == 1 else world.comm.gather(parts, root=0)
        if world.is_root:
            digests[f"bands; heun; {exchange}; direct"] = digest(joined(everybodys))
    if world.is_root:
        Path(sys.argv[1]).write_text(json.dumps(digests))
