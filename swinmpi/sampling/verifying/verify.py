"""Whether an output is what its recorded settings give: some of its images are made again and
compared byte by byte."""
from dataclasses import dataclass

from swinmpi.errors import ConfigError, OutputDiffers, StackError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag
from swinmpi.sampling.sample import load_model
from swinmpi.sampling.verifying.compared import DIFFERS, SAME, Verdict
from swinmpi.sampling.verifying.outputs import Found, find_remakings
from swinmpi.sampling.verifying.recorded import Asked
from swinmpi.sampling.verifying.remake import remake


@dataclass(frozen=True)
class VerifyPlan:
    """A request that can be done; made by `plan`."""

    asked: Asked
    found: Found

    @property
    def num_images(self) -> int:
        return sum(len(one.images) for one in self.found.remakings)


def plan(asked: Asked, num_ranks: int) -> VerifyPlan:
    """Validate everything; nothing is computed. On one process; StackError, ConfigError,
    CheckpointError where nothing can be compared."""
    if asked.count < 1:
        raise ConfigError(f"--images: expected at least 1 image, got {asked.count}")
    return VerifyPlan(asked, find_remakings(asked, num_ranks))


def describe(made: VerifyPlan) -> str:
    """What `run` would do, in a few lines."""
    lines = [f"output      {made.asked.output}"]
    for one in made.found.remakings:
        request = one.sampling.request
        machine = ", ".join(f"{name} {value}" for name, value in one.machine.items())
        lines += [f"made of     {request.stack}", f"checkpoint  {request.checkpoint}, the same",
                  f"made with   {machine or 'it does not tell which machine'}",
                  f"images      {', '.join(map(str, one.images)) or 'none'} of "
                  f"{one.sampling.stack.num_images}"]
    return "\n".join([*lines, *map(str, made.found.unknown)])


def run(made: VerifyPlan, world: World, stop: StopFlag) -> list[Verdict]:
    """Make the images again; on rank 0 what was found of each. Collective; Stopped."""
    verdicts, family = list(made.found.unknown), None
    for one in made.found.remakings:
        if one.images:
            family = family or load_model(one.sampling)
            verdicts += remake(one, world, stop, family)
    return verdicts


def check(made: VerifyPlan, verdicts: list[Verdict]) -> None:
    """OutputDiffers where an image is another one than it should be, StackError where some could
    not be compared."""
    output, total = made.asked.output, len(verdicts)
    differing = [one.name for one in verdicts if one.found == DIFFERS]
    unknown = [one.name for one in verdicts if one.found not in (SAME, DIFFERS)]
    if differing:
        raise OutputDiffers(f"{output}: {len(differing)} of {total} images are not what its "
                            f"settings give: {', '.join(differing[:8])}; it was changed, or made "
                            "by another program than it says: make it again")
    if unknown:
        raise StackError(f"{output}: {len(unknown)} of {total} images could not be compared: "
                         f"{', '.join(unknown[:8])}; see above")
