"""``python -m cuda_stand_in MODULE ARGUMENT...``: a program on the two devices, PyTorch's operators computing as on the CPU."""

import runpy
import sys
from pathlib import Path

from cuda_stand_in import run_kernels_on_host
from cuda_stand_in.host import OnHost


def main() -> None:
    import sampling_argmax_cuda  # noqa: F401  (registers the kernels)

    run_kernels_on_host(Path("build") / "cuda_stand_in")
    sys.argv = sys.argv[1:]
    with OnHost():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
