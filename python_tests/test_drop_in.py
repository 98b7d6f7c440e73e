"""The code of docs/drop_in.md runs, block after block as a reader pastes it, and what the page says of it holds."""

import re
from pathlib import Path

import torch

from sampling_argmax_cuda import expected_error
from sampling_argmax_cuda.compat import dsntnn, kornia
from sampling_argmax_cuda.coords import CONVENTIONS
from sampling_argmax_cuda.objectives.localization import METHODS

PAGE = (Path(__file__).parents[1] / "docs" / "drop_in.md").read_text()


def test_the_code_of_the_page():
    blocks, names = re.findall(r"```python\n(.*?)```", PAGE, re.S), {}
    assert len(blocks) == 9
    torch.manual_seed(0)
    seen = []
    for block in blocks:
        exec(block, names)
        seen.append({key: value for key, value in names.items() if isinstance(value, torch.Tensor)})
    first = seen[0]
    assert first["loss"].isfinite() and first["positions"].shape == (8, 17, 2)
    assert first["logits"].grad[0, 3].eq(0).all() and first["logits"].grad[0, 4].ne(0).any()
    assert torch.equal(seen[1]["positions"], first["positions"])
    assert seen[2]["error"].shape == (8, 17) and seen[2]["draws"].shape == (8, 17, 30, 2)
    assert torch.equal(seen[2]["pixels"], first["positions"])
    assert seen[3]["draws"].shape == (8, 17, 30, 2) and seen[3]["positions"].abs().max() < 1
    assert seen[5]["samples"].shape == (8, 17, 30, 2) and seen[5]["loss"].isfinite()
    torch.testing.assert_close(seen[5]["coords"], seen[4]["coords"])
    assert ((seen[6]["found"] >= 0) & (seen[6]["found"] < 2 * torch.pi)).all() and seen[6]["panorama"].shape == (
        8,
        17,
        2,
    )
    assert seen[7]["peak"].shape == (8, 17, 2)
    assert seen[8]["loss"].isfinite() and seen[8]["known"] == 8 * 17 - 1


def test_what_the_page_lists_is_what_there_is():
    """Methods, conventions, functions of kornia; and that a method is trained in the loop that it shows."""
    table = PAGE.partition("| method |")[2].partition("\n\n")[0]
    assert [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])] == list(
        METHODS
    )
    table = PAGE.partition("| `coords` | value")[2].partition("\n\n")[0]
    assert {re.match(r"\| `(\w+)`", line)[1] for line in table.splitlines()[2:]} == set(CONVENTIONS)
    named = set(re.findall(r"`(\w+2d)`", PAGE))
    assert named == {name for name in vars(kornia) if name.endswith("2d")}


def test_a_metric_in_pixels_is_that_in_cells_times_its_stride():
    """16 times, as the page says of l2 and stride 4; and dsntnn's loss of samples is the fused one."""
    z, cells = torch.randn(2, 3, 8, 8), torch.rand(2, 3, 2) * 7
    form = dict(num_samples=4, tau=1.0, seed=2)
    found = expected_error(z, 4 * cells + 1.5, metric="l2", stride=4, **form)
    torch.testing.assert_close(found, 16 * expected_error(z, cells, metric="l2", **form))
    samples = dsntnn.dsnt(z, from_logits=True, sampling=form)
    own = expected_error(z, cells / 4 - 1, metric="euclidean", coords="cell", **form)
    torch.testing.assert_close(dsntnn.euclidean_losses(samples, cells / 4 - 1), own)
