"""The reference against two other authors: loops over Python floats, and the closed forms of reference/README.md."""

import math

import pytest
import torch
from conftest import assert_close
from test_philox import scalar_philox

from sampling_argmax_cuda import reference
from sampling_argmax_cuda.reference import philox
from sampling_argmax_cuda.reference.axis_sample import bin_noise
from sampling_argmax_cuda.reference.sample import cell_jitter, gumbel_weights

SEED, FIRST_ROW = -(2**62) + 12345, 2**32 - 2  # the rows of a call lie on both sides of 2^32
SHAPES = [(2, 2, 5), (2, 2, 3, 4), (2, 2, 2, 3, 4)]
BASES = ["none", "uniform", "triangular", "gaussian"]
TAU, BETA, SIGMA, SAMPLES = 0.8, 1.3, 1.7, 3
FORM = dict(num_samples=SAMPLES, tau=TAU, beta=BETA, seed=torch.tensor([SEED, FIRST_ROW]))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- loops ---------------------------------------------------------------------------------------------------


def scalar_word(row: int, sample: int, stream: int, index: int) -> int:
    counter = [index // 4, row % 2**32, sample, stream + (row // 2**32) * 256]
    return scalar_philox(counter, [SEED % 2**32, SEED // 2**32 % 2**32])[index % 4]


def scalar_normal(row: int, sample: int, number: int) -> float:
    first = number - number % 2
    u, v = ((scalar_word(row, sample, 3, first + i) + 0.5) / 2**32 for i in (0, 1))
    return math.sqrt(-2 * math.log(u)) * (math.sin if number % 2 else math.cos)(2 * math.pi * v)


def scalar_jitter(field: int, basis: str) -> float:
    """The quantile of the basis, for triangular from its distribution function (1 + n)^2 / 2 or 1 - (1 - n)^2 / 2."""
    u = (field + 0.5) / 65536
    if basis == "uniform":
        return u - 0.5
    return math.sqrt(2 * u) - 1 if u < 0.5 else 1 - math.sqrt(2 - 2 * u)


def scalar_single(row: int, sample: int, field: int) -> int:
    return scalar_word(row, sample, 2, field // 2) // 65536 ** (field % 2) % 65536


def scalar_field(row: int, sample: int, cell: int, axis: int, axes: int) -> int:
    if axis == 2 or axes == 1:
        return scalar_single(row, sample, cell)
    return scalar_word(row, sample, 1, cell) // 65536**axis % 65536


def scalar_weights(z: list[float], row: int, sample: int) -> list[float]:
    gumbel = [-math.log(-math.log1p(-(scalar_word(row, sample, 0, i) + 0.5) / 2**32)) for i in range(len(z))]
    exponents = [(BETA * x + g) / TAU for x, g in zip(z, gumbel, strict=True)]
    terms = [math.exp(e - max(exponents)) for e in exponents]
    return [t / sum(terms) for t in terms]


def scalar_sample(z, cells, row, sample, basis, per_cell) -> list[float]:
    """One position from one row; ``cells`` holds the coordinates (x, y, z) of each cell."""
    w, axes = scalar_weights(z, row, sample), len(cells[0])
    y = [sum(w_i * c[a] for w_i, c in zip(w, cells, strict=True)) for a in range(axes)]
    for a in range(axes):
        if basis in ("uniform", "triangular"):
            fields = (scalar_field(row, sample, i, a, axes) for i in range(len(w)))
            y[a] += sum(w_i * scalar_jitter(f, basis) for w_i, f in zip(w, fields, strict=True))
        elif basis == "gaussian" and per_cell:
            y[a] += SIGMA * sum(w_i * scalar_normal(row, sample, i * axes + a) for i, w_i in enumerate(w))
        elif basis == "gaussian":
            y[a] += SIGMA * math.sqrt(sum(w_i * w_i for w_i in w)) * scalar_normal(row, sample, a)
    return y


def scalar_axis(h: list[float], first: int, row: int, sample: int, basis: str, reweight: float) -> float:
    """One coordinate from the marginals of an axis whose bins are numbered from ``first``."""
    q, u = list(h), [float(j) for j in range(len(h))]
    for j in range(len(h)):
        if basis == "gaussian":
            n = scalar_normal(row, sample, first + j)
            q[j], u[j] = h[j] * math.exp(-reweight * n * n), j + SIGMA * n
        elif basis != "none":
            e = scalar_jitter(scalar_single(row, sample, first + j), basis)
            u[j] = j + e
            if basis == "triangular":
                other = j + (1 if e > 0 else -1)
                q[j] = (1 - abs(e)) * h[j] + abs(e) * (h[other] if 0 <= other < len(h) else 0.0)
    return sum(q_j * u_j for q_j, u_j in zip(q, u, strict=True)) / sum(q)


def scalar_axis_sample(z, cells, row, sample, basis, reweight) -> list[float]:
    w, first, y = scalar_weights(z, row, sample), 0, []
    for a in range(len(cells[0])):
        size = 1 + max(int(c[a]) for c in cells)
        h = [sum(w_i for w_i, c in zip(w, cells, strict=True) if c[a] == j) for j in range(size)]
        y.append(scalar_axis(h, first, row, sample, basis, reweight))
        first += size
    return y


def by_loops(function, logits: torch.Tensor, cells: list, *arguments) -> torch.Tensor:
    """``function(row's logits, cells, row number, sample, ...)`` for every row and sample: ``[B, K, S, d]``."""
    rows = logits.flatten(2).flatten(0, 1).tolist()
    y = [[function(z, cells, FIRST_ROW + r, s, *arguments) for s in range(SAMPLES)] for r, z in enumerate(rows)]
    return torch.tensor(y, dtype=torch.float64).unflatten(0, logits.shape[:2])


def grid_cells(grid: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Positions in row-major order, x (the last tensor dimension) first."""
    width, height = grid[-1], grid[-2] if len(grid) > 1 else 1
    return [(i % width, i // width % height, i // width // height)[: len(grid)] for i in range(math.prod(grid))]


@pytest.mark.parametrize("basis, per_cell", [*((b, False) for b in BASES), ("gaussian", True)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sample_equals_loops(shape, basis, per_cell):
    logits = noise(*shape)
    got = reference.sample(logits, basis=basis, sigma=SIGMA, per_cell_noise=per_cell, **FORM)
    assert_close("sample", got, by_loops(scalar_sample, logits, grid_cells(shape[2:]), basis, per_cell))


@pytest.mark.parametrize("per_cell", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_points_equal_loops(axes, per_cell):
    logits, points = noise(2, 2, 6), noise(1, 6, axes, seed=1)
    got = reference.sample(
        logits, basis="gaussian", sigma=SIGMA, points=points.expand(2, -1, -1), per_cell_noise=per_cell, **FORM
    )
    assert_close("points", got, by_loops(scalar_sample, logits, points[0].tolist(), "gaussian", per_cell))


@pytest.mark.parametrize("basis, reweight", [*((b, 0.0) for b in BASES), ("gaussian", 0.5), ("gaussian", 2.0)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_axis_sample_equals_loops(shape, basis, reweight):
    logits = noise(*shape)
    got = reference.axis_sample(logits, basis=basis, sigma=SIGMA, reweight=reweight, **FORM)
    expected = by_loops(scalar_axis_sample, logits, grid_cells(shape[2:]), basis, reweight)
    assert_close("axis_sample", got, expected)


# ---- closed forms --------------------------------------------------------------------------------------------


def weights_and_cells(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    w = gumbel_weights(logits, SAMPLES, TAU, BETA, FORM["seed"]).detach()
    return w, reference.grid_points(logits.shape[2:])


@pytest.mark.parametrize("basis", ["none", "uniform", "triangular"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_of_sample(shape, basis):
    """Equation (10)."""
    logits = noise(*shape).requires_grad_()
    y = reference.sample(logits, basis=basis, **FORM)
    g = noise(*y.shape, seed=1)
    w, cells = weights_and_cells(logits)
    u = cells.expand(*w.shape, -1)
    if basis != "none":
        u = u + torch.stack(cell_jitter(logits, cells.shape[-1], SAMPLES, basis, FORM["seed"]), -1)
    inner = (g[..., None, :] * (u - y.detach()[..., None, :])).sum(-1)
    expected = BETA / TAU * (w * inner).sum(2).view(shape)
    assert_close("grad", torch.autograd.grad(y, logits, g)[0], expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradients_of_gaussian_sample(axes):
    """Equations (11) and (12), on points."""
    logits, points, sigma = noise(2, 3, 6), noise(2, 6, axes, seed=1), noise(2, 3, seed=2).abs()
    leaves = [x.requires_grad_() for x in (logits, points, sigma)]
    y = reference.sample(logits, basis="gaussian", sigma=sigma, points=points, **FORM)
    g = noise(*y.shape, seed=3)
    (w, _), c = weights_and_cells(logits), points.detach()[:, None, None]
    key, rows, samples = philox.numbering(logits, SAMPLES, FORM["seed"])
    gn = (g * philox.normal(key, rows, samples, torch.arange(axes))).sum(-1, keepdim=True)
    root = w.square().sum(-1, keepdim=True).sqrt()
    inner = (g[..., None, :] * (c - y.detach()[..., None, :])).sum(-1)
    inner = inner + sigma.detach()[..., None, None] * gn / root * w
    expected = (
        BETA / TAU * (w * inner).sum(2),
        torch.einsum("bksn,bksa->bna", w, g),
        (root * gn)[..., 0].sum(-1),
    )
    for name, got, want in zip(("z", "c", "sigma"), torch.autograd.grad(y, leaves, g), expected, strict=True):
        assert_close(f"grad {name}", got, want)


def marginal_gradient(h, noise, g, basis: str, reweight: float, clip: float | None):
    """Equations (21) to (23) for one axis: the gradients of marginals ``[B, K, S, n]`` and, per row, of sigma."""
    bins = torch.arange(h.shape[-1], dtype=torch.float64)
    e = torch.zeros_like(h) if basis == "none" else noise
    u, q = bins + (SIGMA * e if basis == "gaussian" else e), h
    step = torch.where(e > 0, 1, -1)
    valid = ((bins + step) >= 0) & ((bins + step) < h.shape[-1])
    other = (bins.long() + step).clamp(0, h.shape[-1] - 1)
    if basis == "triangular":
        q = (1 - e.abs()) * h + e.abs() * h.gather(-1, other) * valid
    elif basis == "gaussian":
        q = h * torch.exp(-reweight * e.square())
    total, hat = q.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    slope = u
    if clip is not None:
        slope = clip * torch.where(u >= (hat * u).sum(-1, keepdim=True), 1.0, -1.0)
    # Without renormalisation the mean of the slope is a constant per axis, which the softmax's Jacobian removes.
    d = g[..., None] * (slope - (hat * slope).sum(-1, keepdim=True)) / total
    if basis == "gaussian":
        return d * torch.exp(-reweight * e.square()), (g * (hat * e).sum(-1)).sum(-1)
    if basis != "triangular":
        return d, torch.zeros_like(g[..., 0])
    return ((1 - e.abs()) * d).scatter_add(-1, other, e.abs() * d * valid), torch.zeros_like(g[..., 0])


@pytest.mark.parametrize("clip", [None, 2.0])
@pytest.mark.parametrize("basis, reweight", [*((b, 0.0) for b in BASES), ("gaussian", 0.5), ("gaussian", 2.0)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_of_axis_sample(shape, basis, reweight, clip):
    """Equations (21) to (24), true and clipped."""
    logits, sigma = noise(*shape).requires_grad_(), torch.full(shape[:2], SIGMA, dtype=torch.float64)
    sigma.requires_grad_(basis == "gaussian")
    y = reference.axis_sample(logits, basis=basis, sigma=sigma, reweight=reweight, clip_grad=clip, **FORM)
    g, (w, cells) = noise(*y.shape, seed=1), weights_and_cells(logits)
    d, grad_sigma, first = torch.zeros_like(w), 0, 0
    eps = None if basis == "none" else bin_noise(logits, SAMPLES, basis, FORM["seed"])
    for axis, size in enumerate(reversed(shape[2:])):
        bin_of = cells[:, axis].long()
        h = torch.zeros(*w.shape[:3], size, dtype=w.dtype).index_add(-1, bin_of, w)
        part = None if eps is None else eps[..., first : first + size]
        grad_h, part_sigma = marginal_gradient(h, part, g[..., axis], basis, reweight, clip)
        d, grad_sigma, first = d + grad_h[..., bin_of], grad_sigma + part_sigma, first + size
    expected = BETA / TAU * (w * (d - (w * d).sum(-1, keepdim=True))).sum(2).view(shape)
    leaves = [logits, sigma] if basis == "gaussian" else [logits]
    for got, want in zip(torch.autograd.grad(y, leaves, g), (expected, grad_sigma), strict=False):
        assert_close("grad", got, want)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradients_of_moments(axes):
    """Equations (25) to (30), on points; the peak is shared by two cells and its gradient goes to the first."""
    logits, points = noise(2, 3, 6), noise(2, 6, axes, seed=1)
    logits[..., 4] = logits[..., 2] = logits.amax(-1) + 0.1
    leaves = [logits.requires_grad_(), points.requires_grad_()]
    moments = reference.heatmap_moments(logits, beta=BETA, points=points)
    p, c = torch.softmax(BETA * logits.detach(), -1), points.detach()[:, None]
    mean = (p[..., None] * c).sum(-2)
    centred = c - mean[..., None, :]
    outer = centred[..., :, None] * centred[..., None, :]  # [B, K, N, d, d]
    covariance = (p[..., None, None] * outer).sum(2)
    entropy = -(p * p.log()).sum(-1)
    for name, got, want in zip("mCPH", moments, (mean, covariance, p[..., 2], entropy), strict=True):
        assert_close(name, got, want)
    g_mean, g_cov, g_peak, g_entropy = (noise(*m.shape, seed=2 + i) for i, m in enumerate(moments))
    expected = (g_mean[..., None, :] * centred).sum(-1)
    expected = expected + (g_cov[:, :, None] * (outer - covariance[:, :, None])).sum((-1, -2))
    expected = p * (expected - g_entropy[..., None] * (p.log() + entropy[..., None]))
    first = torch.nn.functional.one_hot(torch.tensor(2), 6)
    expected = BETA * (expected + (g_peak * p[..., 2])[..., None] * (first - p))
    per_row = p[..., None] * (g_mean[..., None, :] + centred @ (g_cov + g_cov.mT))
    got = torch.autograd.grad(moments, leaves, (g_mean, g_cov, g_peak, g_entropy))
    assert_close("grad z", got[0], expected)
    assert_close("grad c", got[1], per_row.sum(1))


@pytest.mark.parametrize("basis, per_cell", [*((b, False) for b in BASES), ("gaussian", True)])
@pytest.mark.written_memory
def test_gradcheck_of_sample(basis, per_cell):
    leaves = [noise(2, 2, 5), noise(2, 5, 3, seed=1), noise(2, 1, seed=2).abs() + 0.3]
    on_points = basis in ("none", "gaussian")

    def run(z, points, sigma):
        y = reference.sample(z, basis=basis, sigma=sigma, points=points if on_points else None,
                             per_cell_noise=per_cell, **FORM)  # fmt: skip
        return y + 0 * (points.sum() + sigma.sum())

    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in leaves])


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("metric", ["l1", "l2", "euclidean", "smooth_l1"])
def test_masked_rows_of_expected_error_reach_nothing(metric, basis):
    """Rows of weight 0 with NaN logits, NaN targets or no finite logit, beside rows that count as if alone."""
    logits, target = noise(2, 2, 3, 4), noise(2, 2, 2, seed=1)
    logits[0, 1], target[1, 0], logits[1, 1] = torch.nan, torch.nan, -torch.inf
    weight = torch.tensor([[1.5, 0.0], [0.0, 0.0]], dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (logits, target, weight)]
    loss = reference.expected_error(logits, target, weight, metric=metric, basis=basis, **FORM)
    y = reference.sample(logits[:1, :1].detach(), basis=basis, **FORM)
    distance = reference.expected_error(logits[:1, :1], target[:1, :1], metric=metric, basis=basis, **FORM)
    assert (loss.flatten()[1:] == 0).all() and loss[0, 0] == 1.5 * distance[0, 0]
    assert metric != "l1" or distance.item() == pytest.approx((y - target[:1, :1, None]).abs().sum(-1).mean().item())
    for grad in torch.autograd.grad(loss.sum(), leaves):
        assert (grad.flatten(0, 1)[1:] == 0).all() and not grad.isnan().any()
