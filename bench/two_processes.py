"""Associative embedding with an adversary on one process and on two: ``python -m bench.two_processes [--repeats 5]``.

Every repeat trains ``--steps`` steps of the same global batches both ways, from another seed, on drawn images, and must end; the
table has the seconds of both, the first and last loss of one process, and the largest relative difference of an epoch's loss.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "two_processes.csv"
LIMIT = 600  # seconds after which a run counts as hanging


def train(folder: Path, data: Path, seed: int, steps: int, processes: int) -> tuple[list[float], float]:
    """The loss of every epoch of 4 steps, and the seconds of a run."""
    more = ["--trainer.devices=2", "--trainer.strategy=ddp"] if processes == 2 else ["--trainer.devices=1"]
    command = [
        sys.executable, "-m", "sampling_argmax_cuda", "fit", "--config", "associative", "--config", "adversarial",
        "--config", "synthetic_associative", f"--data.root={data}", "--data.synthetic_train=16", "--data.synthetic_val=2",
        "--data.image_size=[64,64]", f"--data.batch_size={4 // processes}", "--model.stacks=1", "--model.channels=16",
        "--model.norm=frozen", "--adversary.stacks=1", "--adversary.channels=8", "--adversary.gamma=5",
        "--adversary.rate=0.01", "--model.lr=1e-4", f"--model.seed={seed}", f"--seed_everything={seed}",
        f"--trainer.max_epochs={steps // 4}", f"--trainer.check_val_every_n_epoch={steps // 4}",
        f"--trainer.default_root_dir={folder}", *more,
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=LIMIT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seconds = time.perf_counter() - start
    with (folder / "version_0" / "metrics.csv").open() as file:
        return [float(row["train/loss_epoch"]) for row in csv.DictReader(file) if row["train/loss_epoch"]], seconds


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each kind")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of a run, a multiple of 4")
    parser.add_argument("--output", type=Path, default=RESULTS, help="CSV file")
    args = parser.parse_args(argv)
    rows = ["seed,steps,seconds_one,seconds_two,first_loss,last_loss,largest_relative_difference"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in range(args.repeats):
            (one, a), (two, b) = (train(folder / f"{seed}_{n}", folder / "data", seed, args.steps, n) for n in (1, 2))
            apart = max(abs(x - y) / abs(x) for x, y in zip(one, two, strict=True))
            rows.append(f"{seed},{args.steps},{a:.0f},{b:.0f},{one[0]:.5f},{one[-1]:.5f},{apart:.1e}")
            print(rows[-1], flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
