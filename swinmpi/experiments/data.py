"""The data of an experiment: prepared once for all arms, and what they are tested on."""
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.errors import OutputError, StackError
from swinmpi.experiments.plan import ExperimentPlan, data_name, prepare_request
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.storage.pairs import TEST, PairReader
from swinmpi.training.prepare import plan as plan_preparing
from swinmpi.training.prepare import run as run_preparing

WAIT_S = 2.0


def prepared(plan: ExperimentPlan, config: DataConfig, cores: int = 1) -> Path:
    """The pairs of an experiment; prepared now where they are not there. One process, which starts
    others on as many cores.

    Several jobs of an array may ask at once: one prepares, the others wait for it.
    """
    path = plan.request.output / "data" / data_name(config)
    while not path.exists():
        try:
            run_preparing(plan_preparing(prepare_request(plan, path, cores), config))
        except OutputError:
            if not (path.exists() or path.with_name(f"{path.name}.partial").exists()):
                raise
            time.sleep(WAIT_S)
    return path


def test_stack(plan: ExperimentPlan, pairs_path: Path) -> Path:
    """A file of the pairs that every arm is judged on, /lr and /hr: as many as the budget says,
    evenly, of the test split; of the validation split, on which nothing is chosen here, where the
    data have no other. One process.

    StackError where there are fewer.
    """
    wanted = plan.budget.test_images
    path = pairs_path.with_name(f"test-{wanted}-of-{pairs_path.name}")
    with ExitStack() as opened:
        pairs = opened.enter_context(PairReader(pairs_path))
        held_out = pairs.indices("test")
        if not len(held_out):
            held_out = pairs.validate_indices
        if len(held_out) < wanted:
            raise StackError(f"{pairs_path}: expected at least {wanted} test images, found "
                             f"{len(held_out)}; give more photographs, or more crops of each by "
                             "--set data.validate_crops=N or data.test_share=S")
        if not path.exists():
            chosen = held_out[np.linspace(0, len(held_out) - 1, wanted).astype(int)]
            own = path.with_name(f"{path.name}.{time.time_ns()}.h5")
            with PairWriter(own, {"scale": pairs.scale}) as writer:
                for image_index in chosen:
                    hr, lr = pairs.read_pair(image_index)
                    writer.append(hr, lr, TEST, f"image {image_index} of {pairs_path.name}")
            own.replace(path)
    return path
