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
from torchvision_stand_in import import_timm, import_torchvision, suppress

from sampling_argmax_cuda import LocalizationLoss, expected_error

pytestmark = pytest.mark.written_memory  # optimizers and the loops' own tools read memory that they did not write

FOLDER = Path(__file__).parents[1] / "examples"
PAGE = (FOLDER / "README.md").read_text()
RUNS = {
    "plain_loop": [],
    "lightning_module": [],
    "transformers_pose": [],
    "timm_unet": [],
    "smp_unet": [],
    "torchvision_keypoints": [],
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


# ---- torchvision's Keypoint R-CNN ----

SIZE = 56  # cells of torchvision's maps
BOXES = torch.tensor([[3.0, 5.0, 31.0, 61.0], [-4.0, 10.0, 108.0, 24.0], [7.5, 8.25, 20.0, 90.0]])
TRUTH = torch.tensor([[[3.0, 5.0, 1.0], [31.0, 61.0, 2.0], [17.2, 33.3, 1.0], [20.0, 40.0, 0.0]],  # two edges, one hidden
                      [[-4.1, 15.0, 1.0], [108.0, 24.1, 1.0], [50.0, 12.0, 2.0], [0.0, 0.0, 0.0]],  # two out of their box
                      [[8.0, 8.9, 1.0], [19.9, 80.0, 1.0], [13.0, 50.0, 1.0], [15.0, 20.0, 1.0]]])  # fmt: skip


@pytest.fixture
def keypoint_head():
    """The example, and the file of torchvision whose functions it stands for."""
    import_torchvision()
    module = import_module("torchvision_keypoints")
    return module, import_module("torchvision.models.detection.roi_heads")


def test_the_loss_of_torchvision_counts_the_points_that_its_own_counts(keypoint_head):
    """Maps that are certain of torchvision's own cells: the error of every point that counts is less than half a cell."""
    module, own = keypoint_head
    cell, counts = own.keypoints_to_heatmap(TRUTH, BOXES, SIZE)
    assert counts.bool().tolist() == [[True, True, True, False], [False, False, True, False], [True] * 4]
    certain = torch.zeros(3, 4, SIZE * SIZE).scatter(2, cell[..., None], 500.0).unflatten(2, (SIZE, SIZE))
    wrong = certain.roll(9, -1).roll(12, -2)
    images, matched = [BOXES[:2], BOXES[2:]], [torch.tensor([1, 0]), torch.tensor([0])]
    given = [TRUTH[:2].flip(0), TRUTH[2:]]  # of the first image's two people the first box has the second
    assert 0.1 < module.sampled_loss(certain, images, given, matched) < 0.5 * 2**0.5 + 0.5
    for i, j in (~counts.bool()).nonzero().tolist():  # what does not count can say what it likes
        certain[i, j] = torch.nan
    expected = module.sampled_loss(certain, images, given, matched)
    assert expected.isfinite()
    for i, j in counts.nonzero().tolist():
        changed = certain.clone()
        changed[i, j] = wrong[i, j]
        assert module.sampled_loss(changed, images, given, matched) > expected + 0.5
    nothing = [torch.zeros_like(x) for x in given]
    z = certain.nan_to_num(0).requires_grad_()
    for loss in (module.sampled_loss(z, images, nothing, matched),
                 module.sampled_loss(z[:0], [BOXES[:0]], [TRUTH[:0]], [torch.zeros(0).long()])):  # fmt: skip
        loss.backward()
        assert loss == 0 and not z.grad.any()


def test_the_loss_of_torchvision_is_in_cells(keypoint_head, monkeypatch):
    """Without noise a certain map's samples are the centre of its cell, and the loss is the distance in 56ths of the box."""
    module, _ = keypoint_head
    plain = LocalizationLoss("sampling", coords=module.criterion.coords, basis="none", metric="euclidean")
    monkeypatch.setattr(module, "criterion", plain)
    logits = torch.full((1, 1, SIZE, SIZE), -1e4)
    logits[0, 0, 20, 10] = 0.0
    box, point = torch.tensor([[8.0, 16.0, 64.0, 128.0]]), torch.tensor([[[8 + 13.5, 16 + 2 * 24.5, 1.0]]])
    loss = module.sampled_loss(logits, [box], [point], [torch.tensor([0])])
    torch.testing.assert_close(loss, torch.tensor(5.0))
    points, scores = module.moments_inference(logits.expand(2, 3, -1, -1), [box, box + 5])
    assert [tuple(x.shape) for x in points] == [(1, 3, 3)] * 2 and [tuple(x.shape) for x in scores] == [(1, 3)] * 2
    torch.testing.assert_close(points[0][0, 0], torch.tensor([8 + 10.5, 16 + 2 * 20.5, 1.0]))
    torch.testing.assert_close(points[1] - points[0], torch.tensor([5.0, 5.0, 0.0]).expand(1, 3, 3))


def test_the_stand_in_suppresses_what_overlaps():
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 5], [20, 0, 30, 10], [21, 0, 31, 10], [19, 19, 29, 29]]
    boxes, scores = torch.tensor(boxes, dtype=torch.float32), torch.tensor([0.5, 0.9, 0.8, 0.1, 0.2, 0.0])
    assert suppress(boxes, scores, 0.5).tolist() == [1, 2, 4, 5]  # 90 / 110, 45 / 105 and 90 / 110 of the best
    assert suppress(boxes, scores, 0.9).tolist() == [1, 2, 0, 4, 3, 5]
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []


# ---- the page ----


def test_the_page_names_every_example_and_they_are_short():
    files = {path.name for path in FOLDER.glob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", PAGE)) == files == {f"{name}.py" for name in (*RUNS, "mmpose_head")}
    assert set(re.findall(r"`python examples/(\w+)\.py", PAGE)) == RUNS.keys()
    assert all(len((FOLDER / file).read_text().splitlines()) <= 80 for file in files)
