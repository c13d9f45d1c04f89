"""What is compared: `thesis`, all that makes it fast against none of it; `sample`, precisions and
micro-batches."""
from collections.abc import Sequence
from pathlib import Path

from swinmpi.benchmarks.comparison import Candidate, StepWatch, largest_difference, spread
from swinmpi.benchmarks.program import quiet_resolver, random_family
from swinmpi.config import Config
from swinmpi.families.loading import load_family
from swinmpi.parallel.comm import Group

FAST = {"encoder_cache": True, "fused_attention": True, "channels_last": True}
PLAIN = dict.fromkeys(FAST, False)


def thesis_candidates(config: Config, device: str, group: Group) -> list[Candidate]:
    """The same weights, fast and plain; of both the network's answers are kept."""
    made = []
    for name, switches in (("fast", FAST), ("plain", PLAIN)):
        chosen = config.replaced(parallel=switches)
        family = random_family(chosen.model)
        values = switches | {"micro_batch": chosen.parallel.micro_batch}
        resolver = quiet_resolver(chosen, family, device, group)
        made.append(Candidate(name, values, chosen, resolver, StepWatch(keeps_outputs=True)))
    return made


def sample_candidates(config: Config, checkpoint: Path, device: str, group: Group,
                      precisions: Sequence[str], micro_batches: Sequence[int]) -> list[Candidate]:
    """Every precision with every micro-batch, on one copy of the weights; none: as configured."""
    family = load_family(checkpoint, config.model, takes_steps=True)
    made = []
    for precision in precisions or (config.parallel.precision,):
        for size in micro_batches or (config.parallel.micro_batch,):
            values = {"precision": precision, "micro_batch": size}
            chosen = config.replaced(parallel=values)
            resolver = quiet_resolver(chosen, family, device, group)
            made.append(Candidate(f"{precision}, micro-batch {size}", values, chosen, resolver))
    return made


def speed_up(fast: Candidate, plain: Candidate) -> dict:
    """plain / fast, each repeat against its neighbour; and how far their answers lie apart.

    Each follows its own x_t, so only the first step compares networks alone; later ones contain
    what has come of the difference.
    """
    pairs = list(zip(plain.repeats, fast.repeats, strict=True))
    ratios = {name: spread([slow[name] / quick[name] for slow, quick in pairs])
              for name in ("seconds", "cpu_seconds")}
    steps = [largest_difference(a, b)
             for a, b in zip(fast.watch.outputs, plain.watch.outputs, strict=True)]
    return {"plain_over_fast": ratios,
            "largest_difference": {"images": largest_difference(fast.samples, plain.samples),
                                   "first_step": steps[0], "any_step": max(steps),
                                   "steps": steps}}
