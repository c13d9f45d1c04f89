"""The forward process, what a network may predict about it, and its posterior (thesis 1.2).

Shapes: x_0, x_t, eps and outputs are (N, C, H, W), float; t is 0-based, an int for the whole batch
or (N,) int64. a and s are the amplitudes of signal and noise in x_t = a x_0 + s eps, as the path
has them; on a schedule a = sqrt(abar_t), s = sqrt(1 - abar_t).
Coefficients are worked out in float64 and applied element by element, so a part of an image gets
the bits of the whole.
"""
from torch import Tensor

from swinmpi.diffusion.path import Path

PREDICTIONS = ("eps", "v", "x_0")
VARIANCES = ("beta", "posterior")


def q_sample(x_0: Tensor, t: Tensor | int, eps: Tensor, path: Path) -> Tensor:
    """Draw x_t ~ q(x_t | x_0) with the noise eps ~ N(0, 1) (thesis eq. 1.2)."""
    a, s = path.amplitudes(t)
    return combine(a, x_0, s, eps)


def v_target(x_0: Tensor, eps: Tensor, t: Tensor | int, path: Path) -> Tensor:
    """How x_t turns along the path; v = a eps - s x_0 on a schedule."""
    of_x_0, of_eps = path.velocity(t)
    return combine(of_eps, eps, of_x_0, x_0)


def target(kind: str, x_0: Tensor, eps: Tensor, t: Tensor | int, path: Path) -> Tensor:
    """What a network of this kind (eps, v, x_0) should return for x_t; eps is thesis eq. 1.8."""
    _check("prediction", kind, PREDICTIONS)
    if kind == "v":
        return v_target(x_0, eps, t, path)
    return eps if kind == "eps" else x_0


def to_x_0(kind: str, output: Tensor, x_t: Tensor, t: Tensor | int, path: Path) -> Tensor:
    """The x_0 that an output of this kind stands for, in the dtype of its x_t.

    The output's dtype may be a lower one.
    """
    of_x_t, of_output = x_0_factors(kind, t, path)
    output = output.to(x_t.dtype)
    return output if kind == "x_0" else combine(of_x_t, x_t, of_output, output)


def output_for(kind: str, x_0: Tensor, x_t: Tensor, t: Tensor | int, path: Path) -> Tensor:
    """The output of this kind that stands for x_0: the inverse of `to_x_0`."""
    of_x_t, of_output = x_0_factors(kind, t, path)
    return x_0 if kind == "x_0" else combine(1 / of_output, x_0, -of_x_t / of_output, x_t)


def x_0_factors(kind: str, t: Tensor | int, path: Path):
    """(of_x_t, of_output) of x_0 = of_x_t x_t + of_output output.

    Floats for an int t, else (N, 1, 1, 1) float64. No eps at the start of a straight path, where
    x_t holds nothing of x_0.
    """
    _check("prediction", kind, PREDICTIONS)
    if kind == "x_0":
        return 0.0, 1.0
    if kind == "v":
        return path.x_0_of_v(t)
    a, s = path.amplitudes(t)
    return 1 / a, -s / a


def posterior_coefficients(abar_t, abar_prev, variance: str):
    """Factors of x_0 and x_t in the posterior mean, and the posterior's variance.

    Of x at any earlier, less noisy time `prev`, given x_t and x_0. Scalars or float64 tensors. One
    step apart it is thesis eq. 1.6; further apart beta_t is that of the whole stride. variance:
    "posterior" for the exact one, or "beta" for its upper bound beta_t.
    """
    _check("variance", variance, VARIANCES)
    alpha_t = abar_t / abar_prev
    beta_t = 1 - alpha_t
    shrink = (1 - abar_prev) / (1 - abar_t)
    spread = beta_t if variance == "beta" else beta_t * shrink
    return abar_prev ** 0.5 * beta_t / (1 - abar_t), alpha_t ** 0.5 * shrink, spread


def combine(first, x: Tensor, second, y: Tensor) -> Tensor:
    """first x + second y; one rounding per operation.

    So neither the vector width nor fused multiply-add can be seen in the bits.
    """
    return (_round(first, x) * x).add_(_round(second, y) * y)


def _round(factor, x: Tensor):
    return factor.to(x.dtype) if isinstance(factor, Tensor) else factor


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what}: expected one of {', '.join(known)}, got {value!r}")
