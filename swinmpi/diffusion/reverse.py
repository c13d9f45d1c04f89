"""The reverse process: the only loop over t (thesis algorithm 2.2).

The maths never sees a communicator: x_t lives in a `State`, which may be one tensor or strips on a
hundred ranks.
"""
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class State(Protocol):
    """x_t of some images, and how it gets on. `number` counts the evaluations of the network."""

    def predict(self, number: int, t: int) -> Any:
        """The network's output for x_t, on the frame of evaluation `number`."""

    def advance(self, number: int, output: Any) -> None:
        """Put the next x_t in the place of x_t."""


def nothing(number: int, output: Any = None) -> None:
    """What happens around an evaluation nobody watches."""


def reverse(timesteps: Sequence[int], state: State, before: Callable[[int], None] = nothing,
            after: Callable[[int, Any], None] = nothing) -> None:
    """Take `state` from x_T to x_0, an evaluation at each of `timesteps`.

    before(number) is called before an evaluation and may end the run by an exception, after(number,
    output) when x_t has advanced. Collective where `state` is.
    """
    for number, t in enumerate(timesteps):
        before(number)
        output = state.predict(number, t)
        state.advance(number, output)
        after(number, output)
