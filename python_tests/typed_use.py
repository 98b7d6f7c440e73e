"""Every public function and module as users' type checkers see it: what it answers, and what it must refuse.

`make lint` runs mypy and pyright over it; an ignored error that does not come is one too. A test runs what is right.
"""

import torch
from torch import Tensor
from typing_extensions import assert_type

import sampling_argmax_cuda as package
from sampling_argmax_cuda import Moments
from sampling_argmax_cuda.compat import dsntnn, kornia
from sampling_argmax_cuda.objectives import OBJECTIVES, make_objective
from sampling_argmax_cuda.objectives.objective import Objective
from sampling_argmax_cuda.trainers.predictor import Predictor


def right(z: Tensor, target: Tensor, weight: Tensor) -> None:
    """Maps ``[B, K, H, W]`` of logits, positions ``[B, K, 2]`` and weights ``[B, K]``."""
    tau, seed, generator = torch.tensor(0.7), torch.tensor([3]), torch.Generator()
    assert_type(package.sample(z, num_samples=4, tau=0.7, sigma=weight, basis="gaussian", seed=seed), Tensor)
    assert_type(package.sample(z, num_samples=4, tau=tau, stride=(4, 2.0), coords="unit", generator=generator), Tensor)
    assert_type(package.axis_sample(z, num_samples=4, tau=tau, beta=tau, clip_grad=2, seed=1), Tensor)
    assert_type(package.expected_error(z, target, weight, num_samples=4, tau=1, periodic=[0], metric="l2"), Tensor)
    assert_type(package.soft_argmax(z, beta=tau, window=3), Tensor)
    moments = assert_type(package.heatmap_moments(z, sigma=weight), Moments)
    mean, covariance, peak, entropy = moments
    assert_type(mean, Tensor)
    assert_type(moments.variance, Tensor)
    samples = package.sample(z, num_samples=4, tau=0.7)
    assert_type(package.energy_score(samples, target, weight, metric="euclidean"), Tensor)
    assert_type(package.js_divergence(z, target, 2), Tensor)
    assert_type(package.log_density(z, target, basis="gaussian", sigma=1.5), Tensor)
    assert_type(package.heatmap_mode(z), Tensor)
    assert_type(package.local_soft_argmax(z, radius=2), Tensor)
    assert_type(package.convert_coords(target, (6, 5), src="index", dst="unit"), Tensor)
    assert_type(package.decode(z, coords="pixels", stride=4, method="soft"), Tensor)
    assert_type(package.available_backends(), tuple[str, ...])
    assert_type(package.missing_backends(), dict[str, str])


def right_modules(z: Tensor, target: Tensor, weight: Tensor) -> None:
    """The same maps; a call of a module is anything to PyTorch's types, its methods are not."""
    sampling = package.SamplingArgmax(4, tau="coco", stride=[4, 4], periodic=(0,))
    sampling.set_epoch(3, progress=0.1)
    assert_type(sampling.loss(z, target, weight, seed=3), Tensor)
    assert_type(sampling.samples(z, num_samples=2), Tensor)
    position, score = sampling.read(z)
    assert_type(position, Tensor)
    assert_type(sampling.tau, float)
    assert_type(package.SoftArgmax(beta=2).read(z), tuple[Tensor, Tensor])
    criterion = package.LocalizationLoss("energy", coords="pixels", stride=4, num_samples=8)
    criterion.set_epoch(1)
    assert_type(criterion.forward(z, target, weight), Tensor)
    assert_type(criterion.decode(z), Tensor)
    assert_type(package.RLELoss(2).forward(target, target.abs() + 1, target), Tensor)
    assert_type(package.RealNVP(2).log_prob(target), Tensor)
    assert_type(make_objective({"name": "sampling", "tau": 0.5}), Objective)
    assert_type(OBJECTIVES["soft"], type[Objective])


def right_drop_ins(z: Tensor, target: Tensor, weight: Tensor) -> None:
    maps = assert_type(dsntnn.flat_softmax(z), Tensor)
    assert_type(dsntnn.dsnt(maps, sampling=dict(num_samples=4, tau=1.0)), Tensor)
    assert_type(dsntnn.soft_argmax(z, from_logits=True), Tensor)
    assert_type(dsntnn.average_loss(dsntnn.euclidean_losses(target, target), weight), Tensor)
    assert_type(dsntnn.js_reg_losses(maps, target, 1), Tensor)
    assert_type(dsntnn.variance_reg_losses(maps, 1.0), Tensor)
    assert_type(dsntnn.normalized_to_pixel_coordinates(target, (5, 6)), Tensor)
    assert_type(dsntnn.pixel_to_normalized_coordinates(0.25, 6), float)
    assert_type(kornia.spatial_softmax2d(z, temperature=2), Tensor)
    assert_type(kornia.spatial_expectation2d(maps), Tensor)
    assert_type(kornia.spatial_soft_argmax2d(z, sampling={"num_samples": 4, "tau": 1.0}), Tensor)
    assert_type(kornia.SpatialSoftArgmax2d(normalized_coordinates=False).forward(z), Tensor)


def loaded(path: str) -> None:
    assert_type(package.load(path, device="cpu", flip_test=True), Predictor)


def wrong(z: Tensor, target: Tensor, weight: Tensor) -> None:
    """Never run."""
    package.sample(z, tau=0.7)  # type: ignore[call-arg]
    package.sample(z, num_samples=4, tau="coco")  # type: ignore[arg-type]
    package.sample(z, 4, 0.7)  # type: ignore[call-arg]
    package.axis_sample(z, num_samples=4, tau=0.7, points=target)  # type: ignore[call-arg]
    package.expected_error(z, [1.0, 2.0], num_samples=4, tau=0.7)  # type: ignore[arg-type]
    package.expected_error(z, target, num_samples=4, tau=0.7, periodic=0)  # type: ignore[arg-type]
    package.soft_argmax(z.tolist(), coords=target)  # type: ignore[arg-type]
    package.heatmap_moments(z, stride="4")  # type: ignore[arg-type]
    package.heatmap_moments(z).deviation  # type: ignore[attr-defined]  # noqa: B018
    package.energy_score(z, target, metric=None)  # type: ignore[arg-type]
    package.js_divergence(z, target)  # type: ignore[call-arg]
    package.log_density(z, target, sigma=1.0)  # type: ignore[call-arg]
    package.heatmap_mode(z, radius=2)  # type: ignore[call-arg]
    package.local_soft_argmax(z, radius="wide")  # type: ignore[arg-type]
    package.convert_coords(target, "6x5")  # type: ignore[arg-type]
    package.decode(z, stride="4")  # type: ignore[arg-type]
    package.available_backends("cuda")  # type: ignore[call-arg]
    package.missing_backends("cuda")  # type: ignore[call-arg]
    package.load(3)  # type: ignore[arg-type]


def wrong_modules(z: Tensor, target: Tensor) -> None:
    """Never run."""
    package.SamplingArgmax(num_samples="30")  # type: ignore[arg-type]
    package.SamplingArgmax().loss(z, [0.0])  # type: ignore[arg-type]
    package.SoftArgmax(tau=1.0)  # type: ignore[call-arg]
    package.LocalizationLoss(coords=None)  # type: ignore[arg-type]
    package.RLELoss(axes="2")  # type: ignore[arg-type]
    package.RealNVP().log_prob(1.0)  # type: ignore[arg-type]
    Moments(z, z, z)  # type: ignore[call-arg]
    make_objective(3)  # type: ignore[arg-type]
    dsntnn.dsnt(3)  # type: ignore[arg-type]
    dsntnn.pixel_to_normalized_coordinates("0.25", 6)  # type: ignore[type-var]
    kornia.spatial_soft_argmax2d(z, temperature="warm")  # type: ignore[arg-type]
