"""Every example runs as its page says, at smoke size, and its loss falls."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torchvision_stand_in import import_timm

from sampling_argmax_cuda import expected_error

pytestmark = pytest.mark.written_memory  # optimizers and the loops' own tools read memory that they did not write

FOLDER = Path(__file__).parents[1] / "examples"
PAGE = (FOLDER / "README.md").read_text()
RUNS = {
    "plain_loop": [],
    "lightning_module": [],
    "transformers_pose": [],
    "timm_unet": [],
    "point_clouds": [],
    "signals_1d": [],
}


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    """As Python has the folder of a file that it runs."""
    monkeypatch.syspath_prepend(str(FOLDER))


def fell(losses: list[float], factor: float) -> bool:
    """Whether the mean of the last fifth is below that of the first, by a factor."""
    part = max(1, len(losses) // 5)
    return sum(losses[-part:]) < factor * sum(losses[:part])


@pytest.mark.parametrize("name", RUNS)
def test_its_loss_falls(name, capsys):
    import_timm()
    module = import_module(name)
    with torch.random.fork_rng():
        losses = module.main(["--smoke"])
    assert fell(losses, 0.6), losses
    assert "error" in capsys.readouterr().out


@pytest.mark.parametrize("model, largest", [("vitpose", 1.5), ("sapiens2", 4.0)])
def test_transformers_learn_eight_images_by_heart(model, largest, capsys):
    """To within a cell of their maps, which is 4 pixels."""
    with torch.random.fork_rng():
        losses = import_module("transformers_pose").main(["--model", model, "--steps=120"])
    error = float(re.search(r"error ([\d.]+) px", capsys.readouterr().out)[1])
    assert error < largest and losses[-1] < losses[0] / 3


def test_pretrained_transformers_keep_all_but_the_last_layer(tmp_path):
    module = import_module("transformers_pose")
    own = module.tiny("vitpose")
    own.save_pretrained(tmp_path)
    assert module.load(str(tmp_path)).head.conv.weight.equal(own.head.conv.weight)
    own.head.conv = torch.nn.Conv2d(64, 17, 3, padding=1)
    own.config.num_labels = 17
    own.save_pretrained(tmp_path)
    found = module.load(str(tmp_path))
    assert found.head.conv.out_channels == module.POINTS
    assert all(torch.equal(x, own.backbone.state_dict()[key]) for key, x in found.backbone.state_dict().items())


def test_one_runs_as_a_command():
    """In a process of its own, from another folder."""
    environment = os.environ | {"PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run([sys.executable, str(FOLDER / "signals_1d.py"), "--smoke"], env=environment, capture_output=True,
                          text=True, timeout=300, cwd=FOLDER.parents[0] / "python_tests")  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, final = re.search(r"loss ([\d.]+) to ([\d.]+);", done.stdout).groups()
    assert float(final) < float(first)


# ---- mmpose, which has no release for this PyTorch ----


class IntegralRegressionHead(torch.nn.Module):
    """What the example takes of mmpose's head: its logits, the maps' size and the soft-argmax of mmpose's own reading."""

    def __init__(self, in_channels, in_featuremap_size, num_joints, deconv_out_channels=(256,), decoder=None) -> None:
        super().__init__()
        self.heatmap_size = tuple(n * 2 ** len(deconv_out_channels) for n in in_featuremap_size)
        deconvolution = torch.nn.ConvTranspose2d(in_channels, num_joints, 4, 2, padding=1)
        self.simplebaseline_head = deconvolution if deconv_out_channels else None

    def forward(self, feats):
        maps = self.simplebaseline_head(feats).flatten(2).softmax(-1).unflatten(2, self.heatmap_size[::-1])
        width, height = self.heatmap_size
        return torch.stack(
            [maps.sum(2) @ (torch.arange(width) / width), maps.sum(3) @ (torch.arange(height) / height)], -1
        )


@pytest.fixture
def mmpose_head(monkeypatch) -> tuple[ModuleType, list[type]]:
    """The example, imported with a registry, and what it registers."""
    registered: list[type] = []
    models = SimpleNamespace(register_module=lambda: lambda kind: registered.append(kind) or kind)
    parts = {"mmpose": {}, "mmpose.models": {}, "mmpose.models.heads": {"IntegralRegressionHead": IntegralRegressionHead},
             "mmpose.registry": {"MODELS": models}}  # fmt: skip
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "mmpose_head", raising=False)
    return import_module("mmpose_head"), registered


def test_the_head_for_mmpose(mmpose_head):
    """Labels in mmpose's units, a point without a label, its own decoding: what it is trained for is what mmpose reads."""
    module, registered = mmpose_head
    assert registered == [module.SamplingArgmaxHead]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = module.SamplingArgmaxHead(8, (6, 8), 2, deconv_out_channels=(16,), metric="l2", loss_weight=3.0)
        x, y = torch.randint(6, (4, 2)), torch.randint(8, (4, 2))
        features, labels = torch.zeros(4, 8, 8, 6), torch.stack([x / 6, y / 8], -1)
        features[torch.arange(4)[:, None], torch.arange(2), y, x] = 4.0  # the features that say where the points are
        weights = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
        labels[1, 1] = torch.nan
        given = zip(labels.split(1), weights.split(1), strict=True)
        samples = [
            SimpleNamespace(gt_instance_labels=SimpleNamespace(keypoint_labels=x, keypoint_weights=w)) for x, w in given
        ]
        torch.manual_seed(1)
        found = head.loss(features, samples)["loss_kpt"]
        torch.manual_seed(1)
        cells = labels * torch.tensor([12.0, 16.0])
        expected = expected_error(
            head.simplebaseline_head(features), cells, weights, num_samples=30, tau=1.0, metric="l2"
        )
        assert torch.equal(found, 3 * expected.mean())
        optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
        losses = []
        for _ in range(100):
            answer = head.loss(features, samples)
            optimizer.zero_grad()
            answer["loss_kpt"].backward()
            optimizer.step()
            losses.append(answer["loss_kpt"].item())
        assert fell(losses, 0.1) and answer["acc_pose"] == 1
        assert (head(features) - labels)[weights > 0].abs().mean() < 0.02
    with pytest.raises(ValueError, match="deconv_out_channels must not be empty"):
        module.SamplingArgmaxHead(8, (6, 8), 2, deconv_out_channels=())


# ---- the page ----


def test_the_page_names_every_example_and_they_are_short():
    files = {path.name for path in FOLDER.glob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", PAGE)) == files == {f"{name}.py" for name in (*RUNS, "mmpose_head")}
    assert set(re.findall(r"`python examples/(\w+)\.py", PAGE)) == RUNS.keys()
    assert all(len((FOLDER / file).read_text().splitlines()) <= 80 for file in files)
