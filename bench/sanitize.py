"""Every operator forward and backward at small odd shapes, for compute-sanitizer.

``python -m bench.sanitize`` takes the CUDA kernels, ``python -m bench.sanitize triton`` those of Triton.
"""

import argparse

import torch

from sampling_argmax_cuda import axis_sample, expected_error, heatmap_moments, sample

SHAPES = [(2, 3, 37), (1, 2, 9, 7), (1, 1, 63, 48), (1, 1, 3, 5, 7), (1, 1, 2, 70, 50), (1, 1, 70_001)]


def run_all(logits: torch.Tensor, **settings) -> None:
    target = torch.ones(*logits.shape[:2], logits.dim() - 2, device=logits.device)
    for call in (sample, axis_sample):
        call(logits, **settings).sum().backward()
    expected_error(logits, target, **settings).sum().backward()
    sum(m.sum() for m in heatmap_moments(logits, backend=settings["backend"])).backward()


def run_points(**settings) -> None:
    logits = torch.randn(2, 3, 301, device="cuda", requires_grad=True)
    points = torch.randn(2, 301, 3, device="cuda", requires_grad=True)
    sigma = torch.ones(2, 3, device="cuda", requires_grad=True)
    settings.update(points=points, sigma=sigma, basis="gaussian")
    sample(logits, **settings).sum().backward()
    expected_error(logits, torch.zeros(2, 3, 3, device="cuda"), **settings).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "backend", nargs="?", choices=("cuda", "triton"), default="cuda", help="whose kernels (default: cuda)"
    )
    backend = parser.parse_args().backend
    for shape in SHAPES:
        logits = torch.randn(shape, device="cuda", requires_grad=True)
        for basis in ("uniform", "triangular", "gaussian"):
            for tau in (0.7, 0.1):
                run_all(logits, num_samples=6, tau=tau, basis=basis, seed=1, backend=backend)
    half = torch.randn(1, 2, 9, 7, device="cuda").bfloat16().requires_grad_()
    run_all(half, num_samples=6, tau=1.0, basis="none", seed=1, backend=backend)
    run_points(num_samples=6, tau=0.7, seed=1, backend=backend)
    torch.cuda.synchronize()
    print("all operators ran")


if __name__ == "__main__":
    main()
