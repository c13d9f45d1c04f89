"""What a network measures of the values that it is trained on, beside what it learns of them."""
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LONGEST = 200  # updates that a running mean looks back on: of 8 crops each 1600
PART = 1 / 5  # of all updates so far, if that is less: a regression misses most at first


class Deviations(nn.Module):
    """Running deviations of some quantities, kept in the checkpoint.

    Running means of squares over the last PART of all updates, at most LONGEST, the older the less.
    Equal on all ranks, and for any number of them but for rounding, because they come from means
    over all.
    """

    def __init__(self, names: Sequence[str], first: float):
        """names: of the mean squares among the losses of an update; first: all of them, until
        something is measured."""
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("values", torch.full((len(self.names),), first))

    def note(self, losses: Mapping[str, float], num_updates: int) -> None:
        """Take in the losses of an update, means over all ranks, after `num_updates` others."""
        share = 1 / min(max(1, PART * (num_updates + 1)), LONGEST)
        new = self.values.new_tensor([losses[name] for name in self.names])
        self.values.copy_(self.values.square().lerp_(new, share).sqrt_())

    def common(self) -> Tensor:
        """One deviation for all of them, (n,): the root of the mean of their squares."""
        return self.values.square().mean().sqrt().expand_as(self.values)


def note_measured(model: nn.Module, losses: Mapping[str, float], num_updates: int) -> None:
    """Tell all of a network that measures what an update had."""
    for module in model.modules():
        if isinstance(module, Deviations):
            module.note(losses, num_updates)
