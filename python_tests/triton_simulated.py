"""Runs compiled Triton kernels in the PTX simulator.

``python python_tests/triton_simulated.py OPERATOR ARCHITECTURE [-1 | 0 | 1]``, the last of which moves special functions.

A process of its own (test_ptx.py starts it), since the tests' process has Triton's interpreter. Results of the real
launchers are compared with the reference's.
"""

import re
import sys

import ptxsim
import torch
from perturbation import perturbed

from bench.triton_offline import Launch, axis_sample, expected_error, launching, sample, soft_argmax
from sampling_argmax_cuda import reference

SEED, SAMPLES, TAU = torch.tensor([5, 2**32 + 3]), 6, 0.7
SHAPES = [(1, 2, 9, 7), (1, 1, 24, 20)]
LONG = (1, 1, 70_001)


def split_pairs(ptx: str) -> str:
    """Arithmetic on pairs of floats, which sm_100 has and the simulator has not, as two instructions of scalars."""

    def split(match: re.Match) -> str:
        operation, (out, *inputs) = match[1], match[2].split(", ")
        numbers = [f"%pair{k}_{half}" for k in range(len(inputs)) for half in "ab"]
        unpack = [f"mov.b64 {{%pair{k}_a, %pair{k}_b}}, {x};" for k, x in enumerate(inputs)]
        scalar = [f"{operation}.f32 %pair0_{h}, " + ", ".join(f"%pair{k}_{h}" for k in range(len(inputs))) + ";"
                  for h in "ab"]  # fmt: skip
        return " ".join(
            ["{ .reg .f32", ", ".join(numbers) + ";", *unpack, *scalar, f"mov.b64 {out}, {{%pair0_a, %pair0_b}};", "}"]
        )

    return re.sub(r"((?:add|sub|mul|fma)(?:\.rn)?(?:\.ftz)?)\.f32x2\s+([^;]+);", split, ptx)


def widen_mixed(ptx: str) -> str:
    """Arithmetic of floats with 16-bit numbers, which sm_100 has and the simulator has not, as conversions before it."""

    def widen(match: re.Match) -> str:
        operation, kind, operands = match[1], match[2], match[3].split(", ")
        narrow = [k for k, x in enumerate(operands) if x.startswith("%rs")]
        converted = [f"cvt.f32.{kind} %wide{k}, {operands[k]};" for k in narrow]
        wide = [f"%wide{k}" if k in narrow else x for k, x in enumerate(operands)]
        names = ", ".join(f"%wide{k}" for k in narrow)
        return " ".join(["{ .reg .f32", f"{names};", *converted, f"{operation}.f32 {', '.join(wide)};", "}"])

    return re.sub(r"((?:add|sub|fma)\.rn(?:\.ftz)?)\.f32\.(bf16|f16)\s+([^;]+);", widen, ptx)


def shuffle_maxima(ptx: str) -> str:
    """A warp's maximum of floats, which sm_100 has and in which the simulator lets a NaN win, as shuffles."""

    def shuffle(match: re.Match) -> str:
        out, value, mask = match[1].split(", ")
        turns = [f"shfl.sync.bfly.b32 %other, {out}, {lane}, 31, {mask}; max.f32 {out}, {out}, %other;"
                 for lane in (16, 8, 4, 2, 1)]  # fmt: skip
        return " ".join(["{ .reg .b32 %other;", f"mov.b32 {out}, {value};", *turns, "}"])

    return re.sub(r"redux\.sync\.max\.f32\s+([^;]+);", shuffle, ptx)


def simulate(architecture: int):
    def run(kernel, grid, num_warps, **arguments):
        launch = Launch(kernel, grid, num_warps, arguments)
        compiled = launch.compile(architecture)
        compiled.asm["ptx"] = shuffle_maxima(widen_mixed(split_pairs(compiled.asm["ptx"])))
        ptxsim.run_triton(compiled, grid, launch.variables, check=True)

    return launching(run)


def check(name: str, got: torch.Tensor, expected: torch.Tensor, tolerance: float = 3e-5) -> None:
    error = (got.double() - expected).abs().max() / expected.abs().max().clamp(min=1)
    print(f"{name} {tuple(got.shape)}: {error:.1e}")
    assert error <= tolerance


def inputs(shape) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) * 2, torch.rand(shape[:2], generator=generator) + 0.3


def run_sample() -> None:
    for shape in (*SHAPES, LONG):
        for basis in ("uniform", "triangular", "gaussian"):
            z, sigma = inputs(shape)
            width = sigma if basis == "gaussian" else None
            y, stats = sample.sample(z, None, width, SEED, SAMPLES, TAU, 1.0, basis)
            exact, exact_sigma = z.double().requires_grad_(), sigma.double().requires_grad_()
            expected = reference.sample(exact, num_samples=SAMPLES, tau=TAU, basis=basis, sigma=exact_sigma, seed=SEED)
            check(f"sample {basis}", y, expected.detach())
            grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
            needs = [True, False, basis == "gaussian"]
            grads = sample.sample_backward(grad, z, None, width, SEED, y, stats, TAU, 1.0, basis, needs)
            wanted = torch.autograd.grad(expected, (exact, exact_sigma), grad.double(), allow_unused=True)
            check(f"sample backward {basis}", grads[0], wanted[0])
            if basis == "gaussian":
                check("sample sigma", grads[2], wanted[1])


def run_axis_sample() -> None:
    for shape in (*SHAPES, (1, 1, 3, 12, 8), (1, 1, 3, 64, 48), (1, 2, 50)):
        for basis in ("uniform", "triangular", "gaussian"):
            z, sigma = inputs(shape)
            width, clip = sigma if basis == "gaussian" else None, 2.0 if basis == "triangular" else None
            settings = (TAU, 1.0, basis, 0.5, clip)
            y, marginals, stats = axis_sample.axis_sample(z, width, SEED, SAMPLES, *settings)
            exact, exact_sigma = z.double().requires_grad_(), sigma.double().requires_grad_()
            expected = reference.axis_sample(exact, num_samples=SAMPLES, tau=TAU, beta=1.0, basis=basis, sigma=exact_sigma,
                                             reweight=0.5, clip_grad=clip, seed=SEED)  # fmt: skip
            check(f"axis_sample {basis}", y, expected.detach())
            grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
            grads = axis_sample.axis_sample_backward(
                grad, z, width, SEED, marginals, stats, *settings, [True, basis == "gaussian"]
            )
            wanted = torch.autograd.grad(expected, (exact, exact_sigma), grad.double(), allow_unused=True)
            check(f"axis_sample backward {basis}", grads[0], wanted[0])
            if basis == "gaussian":
                check("axis_sample sigma", grads[1], wanted[1])


def run_expected_error() -> None:
    for shape in (*SHAPES, (1, 2, 5000)):
        z, sigma = inputs(shape)
        target = torch.full((*shape[:2], len(shape) - 2), 3.3)
        for basis, metric in (("uniform", "l1"), ("gaussian", "smooth_l1")):
            width = sigma if basis == "gaussian" else None
            got = expected_error.expected_error(z, target, None, None, width, SEED, SAMPLES, TAU, 1.0, basis, metric,
                                                [True, False, basis == "gaussian"])  # fmt: skip
            exact = [x.double().requires_grad_() for x in (z, target, sigma)]
            error = reference.expected_error(exact[0], exact[1], None, num_samples=SAMPLES, tau=TAU, basis=basis,
                                             sigma=exact[2], metric=metric, seed=SEED)  # fmt: skip
            wanted = torch.autograd.grad(error.sum(), exact, allow_unused=True)
            for name, x, y in zip(
                ("error", "grad_logits", "grad_target"), got, (error.detach(), *wanted), strict=False
            ):
                check(f"expected_error {basis} {name}", x, y)


def run_soft_argmax() -> None:
    for shape in SHAPES:
        z, _ = inputs(shape)
        moments = soft_argmax.soft_argmax(z, None, 1.3)
        exact = z.double().requires_grad_()
        expected = reference.heatmap_moments(exact, beta=1.3)
        for name, x, y in zip(("mean", "covariance", "peak", "entropy"), moments[:4], expected, strict=True):
            check(f"soft_argmax {name}", x, y.detach())
        grads = [torch.randn(x.shape, generator=torch.Generator().manual_seed(i)) for i, x in enumerate(expected)]
        got = soft_argmax.soft_argmax_backward(*grads, z, None, *moments, 1.3, [True, False])[0]
        check("soft_argmax backward", got, torch.autograd.grad(expected, exact, [g.double() for g in grads])[0])


def run_variants() -> None:
    """What the shapes above leave out: 16-bit logits, points with their gradients, low temperatures, clipping."""
    for dtype, tolerance in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        z = inputs((1, 2, 9, 8))[0].to(dtype)
        y, stats = sample.sample(z, None, None, SEED, SAMPLES, TAU, 1.0, "uniform")
        got = sample.sample_backward(y, z, None, None, SEED, y, stats, TAU, 1.0, "uniform", [True, False, False])[0]
        exact = z.double().requires_grad_()
        expected = reference.sample(exact, num_samples=SAMPLES, tau=TAU, basis="uniform", seed=SEED)
        check(f"{dtype}", got, torch.autograd.grad(expected, exact, y.double())[0], tolerance)
    for tau in (TAU, 0.1):
        (z, sigma), points = inputs((2, 3, 61)), torch.randn(2, 61, 3, generator=torch.Generator().manual_seed(2))
        target, settings = torch.ones(2, 3, 3), (tau, 1.0, "gaussian")
        leaves = [x.double().requires_grad_() for x in (z, points, sigma)]
        exact = dict(num_samples=SAMPLES, tau=tau, basis="gaussian", sigma=leaves[2], points=leaves[1], seed=SEED)
        y, stats = sample.sample(z, points, sigma, SEED, SAMPLES, *settings)
        got = sample.sample_backward(y, z, points, sigma, SEED, y, stats, *settings, [True] * 3)
        wanted = torch.autograd.grad(reference.sample(leaves[0], **exact), leaves, y.double())
        error = expected_error.expected_error(
            z, target, None, points, sigma, SEED, SAMPLES, *settings, "l2", [True] * 3
        )
        expected = reference.expected_error(leaves[0], target.double(), None, metric="l2", **exact)
        check(f"expected_error points {tau}", error[0], expected.detach(), 3e-5 * max(1, 0.5 / tau))
        for name, x, g in zip(("logits", "points", "sigma"), got, wanted, strict=True):
            check(f"sample points {tau} {name}", x, g, 3e-5 * max(1, 0.5 / tau**2))
    for shape, basis in (((1, 2, 9, 7), "uniform"), ((1, 2, 50), "gaussian"), ((1, 1, 3, 5, 8), "triangular")):
        z, sigma = inputs(shape)
        width = sigma if basis == "gaussian" else None
        y = axis_sample.axis_sample(z, width, SEED, SAMPLES, 0.1, 1.0, basis, 0.5, 2.0)[0]
        expected = reference.axis_sample(z.double(), num_samples=SAMPLES, tau=0.1, beta=1.0, basis=basis,
                                         sigma=sigma.double(), reweight=0.5, clip_grad=2.0, seed=SEED)  # fmt: skip
        check(f"axis_sample low {basis}", y, expected, 1.5e-4)


if __name__ == "__main__":
    with simulate(int(sys.argv[2])), perturbed(int(sys.argv[3]) if len(sys.argv) > 3 else 0):
        {"sample": run_sample, "axis_sample": run_axis_sample, "expected_error": run_expected_error,
         "soft_argmax": run_soft_argmax, "variants": run_variants}[sys.argv[1]]()  # fmt: skip
