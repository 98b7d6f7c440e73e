"""Loads the C++ operators and gives them what the dispatcher needs from Python: fake, autograd and vmap rules."""

from functools import partial
from importlib import import_module

import torch
from torch import Tensor
from torch.library import register_autograd, register_fake, register_vmap

NAMESPACE = "sampling_argmax"


def _load(module: str) -> str | None:
    """Load an extension module, which registers operators; the reason if it cannot be loaded."""
    try:
        import_module(f"{__package__}.{module}")
    except ModuleNotFoundError:
        return "it was not built when this package was installed"
    except ImportError as error:
        return f"it does not load with PyTorch {torch.__version__}: {error}"
    return None


LOAD_ERROR = _load("_C")  # the operators and the CPU's kernels
CUDA_LOAD_ERROR = LOAD_ERROR or _load("_C_cuda")

# The device types that there are kernels for; read once, since a compiled graph cannot ask.
KERNEL_DEVICES = frozenset(
    device for device, error in (("cpu", LOAD_ERROR), ("cuda", CUDA_LOAD_ERROR)) if error is None
)


def _float_of(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _axes_of(logits: Tensor, points: Tensor | None) -> int:
    return logits.dim() - 2 if points is None else points.shape[2]


def _empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    return like.new_empty(shape, dtype=_float_of(like) if dtype is None else dtype)


def _grad_like(x: Tensor | None, logits: Tensor, needed: bool) -> Tensor:
    if not needed or x is None:
        return _empty(logits, 0)
    return logits.new_empty(x.shape, dtype=x.dtype)


# ---- shapes --------------------------------------------------------------------------------------------------


def _sample_fake(logits, points, sigma, seed, num_samples, tau, beta, basis, origins=None):
    rows = logits.shape[:2]
    stats = 2 if basis == "gaussian" else 1
    samples = _empty(logits, *rows, num_samples, _axes_of(logits, points))
    return samples, _empty(logits, *rows, num_samples, stats)


def _sample_backward_fake(grad, logits, points, sigma, seed, samples, stats, tau, beta, basis, needs, origins=None):
    inputs = (logits, points, sigma)
    return tuple(_grad_like(x, logits, n) for x, n in zip(inputs, needs, strict=True))


def _axis_sample_fake(logits, sigma, seed, num_samples, tau, beta, basis, reweight, clip_grad, origins=None):
    rows, bins = logits.shape[:2], sum(logits.shape[2:])
    samples = _empty(logits, *rows, num_samples, logits.dim() - 2)
    return samples, _empty(logits, *rows, num_samples, bins), _empty(logits, *rows, num_samples)


def _axis_sample_backward_fake(
    grad, logits, sigma, seed, marginals, stats, tau, beta, basis, reweight, clip_grad, needs, origins=None
):
    return tuple(_grad_like(x, logits, n) for x, n in zip((logits, sigma), needs, strict=True))


def _expected_error_fake(
    logits, target, weight, points, sigma, seed, num_samples, tau, beta, basis, metric, needs, origins=None
):
    # Each row's own part of the gradient of points, [B, K, N, d]: backward weighs it by the row's factor.
    rows = points.unsqueeze(1).expand(-1, logits.shape[1], -1, -1) if points is not None else None
    grads = [_grad_like(x, logits, n) for x, n in zip((logits, rows, sigma), needs, strict=True)]
    return _empty(logits, *logits.shape[:2]), grads[0], _empty(logits, *target.shape), *grads[1:]


def _soft_argmax_fake(logits, points, beta, origins=None):
    rows, axes = logits.shape[:2], _axes_of(logits, points)
    peak, entropy = (_empty(logits, *rows) for _ in range(2))
    mode = _empty(logits, *rows, dtype=torch.int64)
    return _empty(logits, *rows, axes), _empty(logits, *rows, axes, axes), peak, entropy, mode


def _soft_argmax_backward_fake(
    grad_mean,
    grad_covariance,
    grad_peak,
    grad_entropy,
    logits,
    points,
    mean,
    covariance,
    peak,
    entropy,
    mode,
    beta,
    needs,
    origins=None,
):
    return tuple(_grad_like(x, logits, n) for x, n in zip((logits, points), needs, strict=True))


def _farthest_points_fake(points, first, count):
    return first.new_empty((points.shape[0], count))


def _neighbours_fake(points, centers, radius, count):
    return points.new_empty((*centers.shape[:2], min(count, points.shape[1])), dtype=torch.int64)


# ---- gradients -----------------------------------------------------------------------------------------------


def _needed(grads, needs):
    return tuple(g if n else None for g, n in zip(grads, needs, strict=True))


def _save(ctx, numbers, tensors):
    """Keep tau and beta, which are tensors in C++ and numbers in Triton, and the tensors that backward takes."""
    held = [x for x in numbers if isinstance(x, Tensor)]
    ctx.numbers = () if held else numbers
    ctx.count = len(tensors)
    ctx.save_for_backward(*tensors, *held)


def _saved(ctx):
    """The tensors, and tau and beta."""
    tensors = ctx.saved_tensors
    return tensors[: ctx.count], tensors[ctx.count :] or ctx.numbers


def _sample_setup(ctx, inputs, output):
    logits, points, sigma, seed, _, *numbers, ctx.basis, origins = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for the outputs that have no gradient
    _save(ctx, numbers, (logits, points, sigma, seed, *output, origins))


def _sample_backward(ops, ctx, grad, _):
    if grad is None:
        return (None,) * 9
    needs = list(ctx.needs_input_grad[:3])
    (*tensors, origins), numbers = _saved(ctx)
    grads = ops.sample_backward(grad, *tensors, *numbers, ctx.basis, needs, origins)
    return *_needed(grads, needs), *(None,) * 6


def _axis_sample_setup(ctx, inputs, output):
    logits, sigma, seed, _, *numbers = inputs[:6]
    *ctx.settings, origins = inputs[6:]
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # no zeros for the outputs that have no gradient
    _save(ctx, numbers, (logits, sigma, seed, *output[1:], origins))


def _axis_sample_backward(ops, ctx, grad, *_):
    if grad is None:
        return (None,) * 10
    needs = list(ctx.needs_input_grad[:2])
    (*tensors, origins), numbers = _saved(ctx)
    grads = ops.axis_sample_backward(grad, *tensors, *numbers, *ctx.settings, needs, origins)
    return *_needed(grads, needs), *(None,) * 8


def _expected_error_setup(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # no zeros for the outputs that have no gradient
    ctx.save_for_backward(*output[1:])


def _expected_error_backward(ops, ctx, grad, *_):
    if grad is None:
        return (None,) * 13
    per_logit, per_target, per_point, per_sigma = ctx.saved_tensors
    logits, target, _, points, sigma, *_ = ctx.needs_input_grad
    rows = grad[..., None]
    return (
        (per_logit * rows.to(per_logit.dtype).reshape(*grad.shape, *(1,) * (per_logit.dim() - 2))) if logits else None,
        per_target * rows if target else None,
        None,
        torch.einsum("bk,bkni->bni", grad, per_point) if points else None,
        per_sigma * grad if sigma else None,
        *(None,) * 8,
    )


def _soft_argmax_setup(ctx, inputs, output):
    logits, points, beta, origins = inputs
    ctx.mark_non_differentiable(output[4])
    ctx.set_materialize_grads(False)  # no zeros for the outputs that have no gradient
    _save(ctx, (beta,), (logits, points, *output, origins))


def _soft_argmax_backward(ops, ctx, *grads):
    *grads, _ = grads
    if all(grad is None for grad in grads):
        return (None,) * 4
    needs = list(ctx.needs_input_grad[:2])
    (*tensors, origins), numbers = _saved(ctx)
    result = ops.soft_argmax_backward(*grads, *tensors, *numbers, needs, origins)
    return *_needed(result, needs), None, None


def _no_double_backward(op: str):
    def backward(ctx, *grads):
        raise NotImplementedError(f"{op}: double backward is not implemented; use backend='reference' for it")

    return backward


# ---- vmap ----------------------------------------------------------------------------------------------------


def _vmap_by_loop(op):
    """An operator is a pure function of its arguments, so vmap is the loop over the mapped axis."""

    def rule(info, in_dims, *args):
        def at(i):  # an argument that is a list, of flags, has a list of dimensions, and none of them is mapped
            return [a.select(d, i) if isinstance(d, int) else a for a, d in zip(args, in_dims, strict=True)]

        results = [op(*at(i)) for i in range(info.batch_size)]
        return tuple(torch.stack(column) for column in zip(*results, strict=True)), (0,) * len(results[0])

    return rule


def _register(namespace: str, op: str, fake, setup=None, backward=None) -> None:
    name, ops = f"{namespace}::{op}", getattr(torch.ops, namespace)
    register_fake(name, fake)
    if backward is None:
        register_autograd(name, _no_double_backward(op.removesuffix("_backward")))
    else:
        register_autograd(name, partial(backward, ops), setup_context=setup)
    register_vmap(name, _vmap_by_loop(getattr(ops, op)))


def register(namespace: str) -> None:
    """Give the operators of a dispatcher namespace their shapes, gradients and vmap."""
    _register(namespace, "sample", _sample_fake, _sample_setup, _sample_backward)
    _register(namespace, "sample_backward", _sample_backward_fake)
    _register(namespace, "axis_sample", _axis_sample_fake, _axis_sample_setup, _axis_sample_backward)
    _register(namespace, "axis_sample_backward", _axis_sample_backward_fake)
    _register(namespace, "expected_error", _expected_error_fake, _expected_error_setup, _expected_error_backward)
    _register(namespace, "soft_argmax", _soft_argmax_fake, _soft_argmax_setup, _soft_argmax_backward)
    _register(namespace, "soft_argmax_backward", _soft_argmax_backward_fake)


def register_searches(namespace: str) -> None:
    """Give the searches in point clouds, which only C++ has, their shapes."""
    register_fake(f"{namespace}::farthest_points", _farthest_points_fake)
    register_fake(f"{namespace}::neighbours", _neighbours_fake)


if LOAD_ERROR is None:
    register(NAMESPACE)
    register_searches(NAMESPACE)
