"""A plain network under DistributedDataParallel: two processes with halves of a batch are one process with all of it."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from contract_cases import noise
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sampling_argmax_cuda import LocalizationLoss, SamplingArgmax

pytestmark = pytest.mark.written_memory  # DistributedDataParallel's buckets

BATCH, POINTS, WORLD, STEPS = 6, 2, 2, 3


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Images, and labels in pixels, of which the first half of the batch has fewer."""
    labels = 8 * torch.rand(BATCH, POINTS, 2, generator=torch.Generator().manual_seed(step))
    labels[0], labels[1, 0] = torch.nan, torch.nan
    return noise(BATCH, 3, 9, 10, seed=step), labels


def mean_of_labelled(logits: Tensor, labels: Tensor, seed: Tensor, world: int) -> Tensor:
    """LocalizationLoss over the labelled points of all ranks, times their number: DistributedDataParallel takes the mean."""
    criterion = LocalizationLoss("sampling", coords="pixels", stride=1, reduction="sum", num_samples=8)
    count = (~labels.isnan().any(-1)).sum()
    if world > 1:
        dist.all_reduce(count)
    return criterion(logits, labels, seed=seed) * world / count


def mean_of_points(logits: Tensor, labels: Tensor, seed: Tensor, world: int) -> Tensor:
    """SamplingArgmax over points that are all known: the mean of the ranks' means."""
    objective = SamplingArgmax(num_samples=8, tau=0.5, basis="gaussian", spread=0.5)
    return objective.loss(logits, labels.nan_to_num(4.0), seed=seed).mean()


LOSSES = {"labelled": mean_of_labelled, "points": mean_of_points}


def trained(loss: str, rank: int, world: int, rows_apart: bool = True) -> dict[str, Tensor]:
    """The weights after a few steps, and the samples of this rank's part of the last batch."""
    torch.manual_seed(0)
    net = nn.Conv2d(3, POINTS, 5, padding=2)
    model = net if world == 1 else DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    each = BATCH // world
    for step in range(STEPS):
        images, labels = (x[rank * each :][:each] for x in batch(step))
        seed = torch.tensor(
            [step, rank * each * POINTS if rows_apart else 0]
        )  # the key, and the number of the first row
        optimizer.zero_grad()
        logits = model(images)
        LOSSES[loss](logits, labels, seed, world).backward()
        optimizer.step()
    return {**net.state_dict(), "samples": SamplingArgmax(4).samples(logits.detach(), seed=seed)}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    found = {loss: trained(loss, rank, WORLD) for loss in LOSSES}
    found["one row"] = trained("points", rank, WORLD, rows_apart=False)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ddp")
    torch.multiprocessing.start_processes(work, (folder,), WORLD, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_are_one(loss, ranks):
    one, (first, second) = trained(loss, 0, 1), [rank[loss] for rank in ranks]
    for name in ("weight", "bias"):
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], one[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.cat([first["samples"], second["samples"]]), one["samples"], rtol=1e-4, atol=1e-4)


def test_ranks_that_number_their_rows_alike_share_their_noise(ranks):
    """The page's reason for the second number of the seed."""
    one, found = trained("points", 0, 1), ranks[0]["one row"]
    assert (found["weight"] - one["weight"]).abs().max() > 1e-4
