"""Exponential moving average of a module's parameters (thesis eq. 2.1)."""
import torch
from torch import Tensor, nn


class Ema:
    """Holds theta_EMA beside a training module; not collective: equal parameters on all
    ranks stay equal."""

    def __init__(self, module: nn.Module, decay: float, ramp: bool, start: int = 0):
        """start: so many first updates copy the weights."""
        self.decay, self.ramp, self.start = decay, ramp, start
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, num_updates: int) -> None:
        """theta_EMA = (1 - mu) theta + mu theta_EMA; with the ramp, mu = min(decay,
        (1 + n) / (10 + n)) after n updates."""
        if num_updates < self.start:
            return self.load(module.state_dict())
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates)) if self.ramp else self.decay
        current = module.state_dict()
        floating = [name for name, value in self.tensors.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.tensors[name] for name in floating],
                             [current[name] for name in floating], 1 - decay)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from saved tensors; the names and shapes must be those of the module."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
