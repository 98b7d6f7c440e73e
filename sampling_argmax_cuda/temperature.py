"""tau and beta of a call, numbers or tensors: which backend has their gradients, and how operators take them."""

import math

from torch import Tensor

from . import backends, checks


def resolve(op: str, backend: str, logits: Tensor, tau: float | Tensor) -> str:
    """The backend that runs ``op``: for the gradient of tau, which has the noise in it, the reference."""
    target = backends.resolve(op, backend, logits)
    if target == "reference" or not checks.needs_gradient(tau):
        return target
    if backend != "auto":
        raise ValueError(
            f"{op}: backend {backend!r} has no gradient of tau; backend 'reference' has, which 'auto' takes for it"
        )
    return "reference"


def operands(
    op: str, target: str, logits: Tensor, *tau: float | Tensor, beta: float | Tensor
) -> tuple[Tensor, list[float | Tensor]]:
    """The logits; and tau, if it is given, and beta as the operators take them.

    Beta's gradient comes by the logits' own, ``beta d/d(beta) = z d/dz``: they get a factor of 1 that it flows through.
    """
    numbers = [checks.number_for(op, name, x, target) for name, x in (*(("tau", t) for t in tau), ("beta", beta))]
    if isinstance(beta, Tensor) and checks.needs_gradient(beta):
        finite = logits.masked_fill(logits == -math.inf, 0).to(checks.arithmetic_dtype(logits))
        logits = logits.to(finite.dtype) + finite * (beta / beta.detach() - 1)
    return logits, numbers
