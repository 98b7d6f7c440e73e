"""The calls that the contract is tested with (test_contract.py, test_triton.py), and their check against the reference."""

from dataclasses import dataclass, field

import torch
from conftest import assert_close, machine_device

from sampling_argmax_cuda import axis_sample, expected_error, heatmap_moments, sample

AXIS_OPTIONS = {
    "none": [{}, {"clip_grad": 2.0}],
    "uniform": [{}, {"clip_grad": 2.0}],
    "triangular": [{}, {"clip_grad": 2.0}],
    "gaussian": [{"reweight": 0.0}, {"reweight": 0.5}, {"reweight": 2.0, "clip_grad": 0.7}],
}
EXPECTED: dict[tuple, tuple[dict, dict]] = {}


@dataclass
class Case:
    """One call: differentiable tensors by name, and plain arguments."""

    op: str
    tensors: dict
    arguments: dict = field(default_factory=dict)

    def run(self, backend: str = "auto", dtype: torch.dtype | None = None) -> tuple[dict, dict]:
        """Outputs and gradients by name; ``dtype`` replaces the tensors' own (the reference runs in float64)."""
        device = "cpu" if backend == "reference" else machine_device()
        leaves = {k: v.detach().to(device, dtype or v.dtype).requires_grad_() for k, v in self.tensors.items()}
        arguments = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in self.arguments.items()}
        function = {"sample": sample, "axis_sample": axis_sample, "expected_error": expected_error,
                    "heatmap_moments": heatmap_moments}[self.op]  # fmt: skip
        result = function(**leaves, **arguments, backend=backend)
        outputs = result._asdict() if isinstance(result, tuple) else {"result": result}
        total = sum((x * probe(x)).sum() for x in outputs.values())
        names = list(leaves)
        grads = torch.autograd.grad(total, [leaves[n] for n in names], allow_unused=True)
        outputs = {name: x.cpu() for name, x in outputs.items()}
        return outputs, {n: g.cpu() for n, g in zip(names, grads, strict=True) if g is not None}

    def expected(self) -> tuple[dict, dict]:
        """The reference's results, kept while the machines take turns on one problem."""
        key = self.op, *(tuple((k, content(v)) for k, v in d.items()) for d in (self.tensors, self.arguments))
        if key not in EXPECTED:
            if len(EXPECTED) == 64:
                EXPECTED.clear()
            EXPECTED[key] = self.run("reference", torch.float64)
        return EXPECTED[key]

    def check(self) -> tuple[dict, dict]:
        """The outputs and gradients, which are the reference's to the tolerances."""
        outputs, grads = self.run()
        expected_outputs, expected_grads = self.expected()
        tau = self.arguments.get("tau", 1.0)
        for name, x in outputs.items():
            assert_close(f"{self.op}.{name}", x, expected_outputs[name], tau)
        assert grads.keys() == expected_grads.keys()
        for name, g in grads.items():
            assert g.dtype == self.tensors[name].dtype
            assert_close(f"{self.op}.grad_{name}", g, expected_grads[name], of_gradient(tau))
        return outputs, grads


def of_gradient(tau: float) -> float:
    """The temperature whose values have a gradient's tolerance, which the derivative by z / tau makes up to four times wider."""
    return max(tau / 4, min(tau, 2 * tau * tau))


def content(x):
    """What makes two arguments of the reference the same one."""
    return (x.shape, x.detach().double().cpu().numpy().tobytes()) if isinstance(x, torch.Tensor) else x


def probe(x: torch.Tensor) -> torch.Tensor:
    """A fixed cotangent of no particular structure, the same in every precision."""
    return torch.cos(torch.arange(x.numel(), dtype=torch.float64) * 1.7).reshape(x.shape).to(x)


def number(x: float) -> torch.Tensor:
    """tau or beta as the C++ operators take it."""
    return torch.tensor(x, dtype=torch.float64)


def noise(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def grid_cases(shape, settings, basis):
    """All operators on one grid, one setting and one basis."""
    logits, rows, axes = noise(*shape), shape[:2], len(shape) - 2
    width = {"sigma": noise(*rows, seed=1).abs() + 0.3} if basis == "gaussian" else {}
    settings = dict(settings, basis=basis, seed=2**40 + 7)
    target = noise(*rows, axes, seed=3) + torch.tensor([n / 2 for n in shape[:1:-1]])
    yield Case("sample", {"logits": logits, **width}, settings)
    for options in AXIS_OPTIONS[basis]:
        yield Case("axis_sample", {"logits": logits, **width}, dict(settings, **options))
    for metric in ("l1", "l2", "euclidean", "smooth_l1"):
        tensors = {"logits": logits, "target": target, "weight": noise(*rows, seed=4).abs(), **width}
        yield Case("expected_error", tensors, dict(settings, metric=metric))


def cloud_cases(cloud, all_settings, basis):
    """The operators that take points, on one cloud and one basis."""
    batch, keypoints, cells, axes = cloud
    tensors = {"logits": noise(batch, keypoints, cells), "points": noise(batch, cells, axes, seed=5)}
    width = {"sigma": noise(batch, 1, seed=6).abs() + 0.1} if basis == "gaussian" else {}
    target = {"target": noise(batch, keypoints, axes, seed=7), "weight": noise(batch, keypoints, seed=8).abs()}
    for settings in all_settings:
        settings = dict(settings, basis=basis, seed=3)
        yield Case("sample", {**tensors, **width}, settings)
        yield Case("expected_error", {**tensors, **target, **width}, settings)
    yield Case("heatmap_moments", tensors, {"beta": 1.3})
