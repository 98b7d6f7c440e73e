"""Residual log-likelihood estimation: the flow is a density, the loss is its formulas, what is masked goes nowhere."""

import copy
import math

import pytest
import torch

from sampling_argmax_cuda import RealNVP, RLELoss
from sampling_argmax_cuda.objectives.rle import DENSITIES, FORMS, Rle, SoftRle, base_energy
from sampling_argmax_cuda.reference.rle import MinimalRLE

POINTS = (4, 7)


def seeded(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights that are no network's first ones, so that a flow is far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter.shape) ** 0.5)
    return module


def problem(axes: int = 2, points: tuple[int, ...] = POINTS, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Prediction, width and target."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target = (torch.randn(*points, axes, generator=generator) for _ in range(2))
    return prediction, torch.rand(*points, axes, generator=generator) + 0.2, target


# ---- the flow ----


@pytest.mark.parametrize("axes", [2, 3])
def test_flow_is_inverted(axes):
    flow, z = seeded(RealNVP(axes)), torch.randn(500, axes, generator=torch.Generator().manual_seed(2))
    x = flow(z)
    assert (flow.inverse(x)[0] - z).abs().max() <= 1e-6 * 10 and (x - z).abs().max() > 0.5
    flow, z = flow.double(), z.double()
    assert (flow.inverse(flow(z))[0] - z).abs().max() <= 1e-6


def test_published_number_of_parameters():
    assert sum(p.numel() for p in RealNVP(2).parameters()) == 53784


@pytest.mark.parametrize("axes", [2, 3])
def test_log_determinant_is_autograds(axes):
    flow = seeded(RealNVP(axes)).double()
    for x in torch.randn(5, axes, dtype=torch.float64, generator=torch.Generator().manual_seed(3)):
        jacobian = torch.autograd.functional.jacobian(lambda y: flow.inverse(y)[0], x)
        assert flow.inverse(x)[1].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-6)


@torch.no_grad()
def test_flow_is_a_density_and_samples_follow_it():
    """The integral over a grid is 1, and the mean of log G over 40,000 samples is that integral's, within 4 standard errors."""
    flow = seeded(RealNVP(2)).double()
    side = torch.linspace(-20, 20, 501, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    log_prob = flow.log_prob(grid)
    cell = (side[1] - side[0]) ** 2
    assert (log_prob.exp().sum() * cell).item() == pytest.approx(1, abs=2e-3)
    entropy = -(log_prob.exp() * log_prob).sum() * cell
    drawn = flow.float().sample(40_000, torch.Generator().manual_seed(0))
    seen = -flow.log_prob(drawn)
    assert abs(seen.mean() - entropy) < 4 * seen.std() / 200 + 2e-3
    # The bound notices samples that are 5 % too wide.
    assert abs(-flow.log_prob(1.05 * drawn).mean() - entropy) > 4 * seen.std() / 200 + 2e-3


def test_an_identity_flow_is_the_normal():
    flow, x = RealNVP(3), torch.randn(9, 3)
    for parameter in flow.parameters():
        torch.nn.init.zeros_(parameter)
    expected = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3)).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), expected)
    assert flow.log_prob(torch.empty(0, 3)).shape == (0,)


def test_flow_arguments():
    with pytest.raises(ValueError, match="needs axes >= 2, couplings and width >= 1, got 1, 6, 64"):
        RealNVP(1)


# ---- the loss ----


@pytest.mark.parametrize(
    "density, law", [("laplace", torch.distributions.Laplace), ("gaussian", torch.distributions.Normal)]
)
@pytest.mark.parametrize("axes", [2, 3])
def test_corrected_form_is_a_likelihood_under_torchs_densities(axes, density, law):
    loss, (prediction, sigma, target) = seeded(RLELoss(axes, density=density)), problem(axes)
    flow = loss.flows[-1].log_prob((prediction - target) / sigma)
    expected = -law(target, sigma).log_prob(prediction).sum(-1) - flow
    torch.testing.assert_close(loss(prediction, sigma, target), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
def test_released_form_is_its_identity(axes):
    """``2 sum log sigma - D log G + sum |e| / sqrt(2) + D log(2 pi) / 2``: the widths twice, the flow D times."""
    loss = seeded(RLELoss(axes, "released", "released")).double()
    prediction, sigma, target = (x.double() for x in problem(axes))
    error = (prediction - target) / sigma
    expected = (2 * sigma.log().sum(-1) - axes * loss.flows[-1].log_prob(error) + error.abs().sum(-1) / math.sqrt(2)
                + axes * 0.5 * math.log(2 * math.pi))  # fmt: skip
    assert (loss(prediction, sigma, target) - expected).abs().max() <= 1e-5
    # As the published code adds it up: per axis log sigma - log G, and the density with its own log sigma.
    flow = loss.flows[-1].log_prob(error).unsqueeze(-1)
    per_axis = (
        (sigma.log() - flow)
        + (sigma * math.sqrt(2 * math.pi)).log()
        + (prediction - target).abs() / (math.sqrt(2) * sigma)
    )
    assert (loss(prediction, sigma, target) - per_axis.sum(-1)).abs().max() <= 1e-5


@pytest.mark.parametrize("density", DENSITIES)
def test_forms_differ_as_they_say(density):
    corrected, released = (seeded(RLELoss(2, form, density)) for form in FORMS)
    prediction, sigma, target = problem()
    flow = corrected.flows[0].log_prob((prediction - target) / sigma)
    difference = released(prediction, sigma, target) - corrected(prediction, sigma, target)
    torch.testing.assert_close(difference, sigma.log().sum(-1) - flow, rtol=1e-4, atol=1e-5)


def test_the_released_base_is_no_density():
    """Its Q integrates to 2 / sqrt(pi); those of the other two to 1."""
    x = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    totals = {name: torch.trapezoid((-base_energy(x, name)).exp(), x).item() for name in DENSITIES}
    assert totals == pytest.approx({"laplace": 1, "gaussian": 1, "released": 2 / math.sqrt(math.pi)}, abs=1e-6)


def test_equals_the_page_of_reference():
    minimal, loss = seeded(MinimalRLE()), RLELoss()
    state = {}
    for name, value in minimal.state_dict().items():
        kind, coupling, layer, part = name.split(".")
        state[f"flows.0.{kind}.{coupling}.{int(layer) // 2}.{part}"] = value
    loss.load_state_dict(state)
    prediction, sigma, target = problem()
    visible = torch.rand(POINTS, generator=torch.Generator().manual_seed(4)) > 0.4
    expected = minimal(prediction, sigma, target, visible)
    torch.testing.assert_close(loss(prediction, sigma, target, visible.float()).sum() / visible.sum(), expected)
    assert minimal(prediction, sigma, target, torch.zeros(POINTS, dtype=torch.bool)) == 0


# ---- masks ----


def gradients(loss: RLELoss, *inputs: torch.Tensor, **more) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss and the gradients of predictions, widths and every parameter."""
    inputs = [x.clone().requires_grad_(i < 2) for i, x in enumerate(inputs)]
    value = loss(*inputs, **more)
    return value.detach(), torch.autograd.grad(value.sum(), [*inputs[:2], *loss.parameters()])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("density", DENSITIES)
def test_masked_points_never_enter(form, density):
    """Whatever they hold: the loss and the gradients of everything are those of zeros in their place."""
    loss, weight = seeded(RLELoss(2, form, density)), torch.ones(POINTS)
    weight[0, :3] = weight[2] = 0
    inputs = problem()
    clean = gradients(loss, *(torch.where(weight[..., None] > 0, x, 0) for x in inputs), weight=weight)
    for bad in (math.nan, math.inf, -math.inf, 1e38):
        for spoilt in range(3):
            other = [torch.where(weight[..., None] > 0, x, bad if i == spoilt else 0) for i, x in enumerate(inputs)]
            value, grads = gradients(loss, *other, weight=weight)
            assert torch.equal(value, clean[0]) and all(map(torch.equal, grads, clean[1]))
    assert (clean[0][weight == 0] == 0).all() and (clean[0][weight > 0] != 0).all()


@pytest.mark.parametrize("points", [(4, 7), (1, 1), (0, 7), (3,), ()], ids=str)
@pytest.mark.parametrize("kind", ["nothing", "flat", "space", "mixed"])
def test_mixed_batches(kind, points):
    """Points of two and of three known coordinates have their own flows; every parameter always has a gradient."""
    loss, inputs = seeded(RLELoss(3)), problem(3, points)
    known = {"nothing": torch.zeros, "flat": torch.ones, "space": torch.ones, "mixed": torch.ones}[kind](*points, 3)
    if kind == "flat":
        known[..., 2] = 0
    if kind == "mixed" and points == POINTS:
        known[0, :, 2] = known[1, :, 1] = known[2, 3] = 0
    value, grads = gradients(loss, *inputs, known=known)
    flat = RLELoss(2)
    flat.flows[0].load_state_dict(loss.flows[0].state_dict())
    in_space, in_plane = loss(*inputs), flat(*(x[..., :2] for x in inputs))
    all_known, plane = known.all(-1), (known[..., :2] > 0).all(-1) & (known[..., 2] == 0)
    expected = torch.where(all_known, in_space, torch.where(plane, in_plane, 0))
    torch.testing.assert_close(value, expected.detach())
    assert all(g is not None and g.isfinite().all() for g in grads)


def test_weights_are_factors():
    loss, inputs = seeded(RLELoss()), problem()
    weight = torch.rand(POINTS, generator=torch.Generator().manual_seed(5)) + 0.1
    torch.testing.assert_close(loss(*inputs, weight), weight * loss(*inputs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("axes", [2, 3])
def test_soak(form, density, axes):
    """Random and adversarial: errors up to 1e6, widths from -1 through 0 to 1e6; loss and gradients stay finite."""
    generator, loss = torch.Generator().manual_seed(6), seeded(RLELoss(axes, form, density))
    for round in range(30):
        scales = 10 ** (torch.rand(3, 64, axes, generator=generator) * 12 - 6)
        prediction, sigma, target = torch.randn(3, 64, axes, generator=generator) * scales
        if round % 3 == 0:
            sigma = torch.zeros_like(sigma)
        if round % 5 == 0:
            prediction = target.clone()
        value, grads = gradients(loss, prediction, sigma, target)
        assert value.isfinite().all() and all(g.isfinite().all() for g in grads)


def test_widths_have_a_floor():
    loss, (prediction, _, target) = RLELoss(min_sigma=0.01), problem()
    tiny, floor = (torch.full_like(prediction, x) for x in (1e-9, 0.01))
    assert torch.equal(loss(prediction, tiny, target), loss(prediction, floor, target))


# ---- as a module ----


def test_it_learns_a_density():
    """Errors that are two clumps: the flow finds what no Laplacian has, below the entropy of the best Laplacian."""
    torch.manual_seed(0)
    loss, sigma = RLELoss(), torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([*loss.parameters(), sigma], lr=3e-3)
    for step in range(300):
        side = torch.where(torch.rand(256, 1) < 0.5, 1.0, -1.0)
        error = side * torch.tensor([1.0, 0.5]) + 0.05 * torch.randn(256, 2)
        value = loss(error, sigma.exp().expand(256, 2), torch.zeros(256, 2)).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step == 0:
            first = value.item()
    # Exactly: the flow's own likelihood, since Q only adds to it.
    assert value.item() < first - 1 and -loss.flows[0].log_prob(error / sigma.exp()).mean() < 1.5


def test_gradcheck():
    loss = seeded(RLELoss(3)).double()
    prediction, sigma, target = (x.double().requires_grad_() for x in problem(3, (2, 2)))
    known = torch.ones(2, 2, 3)
    known[0, 1, 2] = 0
    assert torch.autograd.gradcheck(lambda *x: loss(*x, known=known), (prediction, sigma, target))


def test_compile_fullgraph():
    loss, inputs = seeded(RLELoss(3)), problem(3)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs, torch.ones(POINTS)), loss(*inputs, torch.ones(POINTS)))


def test_autocast_and_16_bits():
    loss, inputs = seeded(RLELoss()), problem()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(*inputs), loss(*inputs)) and loss(*inputs).dtype == torch.float32
        inside = loss(*inputs)
    assert torch.equal(inside, loss(*inputs))
    half = [x.bfloat16() for x in inputs]
    torch.testing.assert_close(loss(*half), loss(*(x.float() for x in half)))


PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("made", PRECISIONS)
@pytest.mark.parametrize("cast", PRECISIONS)
def test_a_flow_of_any_precision_is_computed_in_32_bits_or_more(made, cast):
    """Under another default dtype, and of a network that was cast: the result is that of its weights in float64."""
    torch.set_default_dtype(made)
    try:
        loss = seeded(RLELoss(3)).to(cast)
        inputs = [x.float() for x in problem(3)]
        known = torch.ones(*POINTS, 3, dtype=torch.bool)
        known[0, :, 2] = False
        for autocast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                found, drawn = loss(*inputs, known=known), loss.flows[1].sample(3)
                log_prob = loss.flows[1].log_prob(inputs[0])
            assert found.dtype == torch.float32 and all(x.dtype == loss.flows[1].dtype for x in (drawn, log_prob))
            loss(*inputs, known=known).sum().backward()
            assert all(p.grad.dtype == cast and p.grad.isfinite().all() for p in loss.parameters())
            exact = copy.deepcopy(loss).double()
            tolerance = dict(rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(found.double(), exact(*(x.double() for x in inputs), known=known), **tolerance)
            torch.testing.assert_close(log_prob.double(), exact.flows[1].log_prob(inputs[0].double()), **tolerance)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(axes=4), "axes must be 2 or 3, got 4"),
        (dict(form="paper"), "form must be one of corrected, released, got 'paper'"),
        (dict(density="cauchy"), "density must be one of laplace, gaussian, released, got 'cauchy'"),
        (dict(min_sigma=0.0), "min_sigma must be > 0, got 0.0"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"RLELoss: {message}"):
        RLELoss(**arguments)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(prediction=torch.zeros(4, 7, 3)), r"prediction must be \[..., 2\] of floating point, got \(4, 7, 3\)"),
        (dict(prediction=torch.zeros(4, 7, 2, dtype=torch.int64)), "prediction must be .* of floating point"),
        (dict(sigma=torch.zeros(4, 7, 1)), r"sigma must be \[4, 7, 2\], got \[4, 7, 1\]"),
        (dict(weight=torch.zeros(4, 7, 2)), r"weight must be \[4, 7\], got \[4, 7, 2\]"),
        (dict(known=torch.zeros(4, 7)), r"known must be \[4, 7, 2\], got \[4, 7\]"),
    ],
)
def test_shapes(change, message):
    inputs = dict(zip(("prediction", "sigma", "target"), problem(), strict=True))
    with pytest.raises(ValueError, match=f"RLELoss: {message}"):
        RLELoss()(**{**inputs, **change})


@pytest.mark.parametrize("kind", [Rle, SoftRle])
def test_answers_without_widths_are_refused(kind):
    answer = torch.zeros(4, 7, 2) if kind is Rle else torch.zeros(4, 7, 5, 6)
    for call in (lambda x: x.loss(answer, torch.zeros(4, 7, 2)), lambda x: x.read(answer)):
        with pytest.raises(ValueError, match=f"{kind.__name__}: the output must be an OutputWithSigma, got Tensor"):
            call(kind())
