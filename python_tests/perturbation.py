"""Special functions of the PTX simulator off by what PTX's manual allows: 2^-22, of lg2 beside 1 absolutely."""

from unittest.mock import patch

import numpy as np
from ptxsim import ops

BOUND = 2.0**-22
SIGNS = (0, 1, -1)


def moved(name: str, function, sign: int):
    def run(x):
        y = function(x)
        absolute = (name == "lg2") & (x > 0.5) & (x < 2)
        return y + sign * BOUND * np.where(absolute, 1.0, np.abs(y))

    return run


def perturbed(sign: int):
    """A context in which all of them give too much (1), too little (-1), or exact numbers (0)."""
    return patch.dict(ops.APPROX, {name: moved(name, f, sign) for name, f in ops.APPROX.items()} if sign else {})
