"""Files of weights: whatever names their tensors have, what is said of them is true; broken ones are one line."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.trainers.resnet import PoseNet, RegressionNet, ResNet
from sampling_argmax_cuda.trainers.weights import load_weights, read_checkpoint, start_from


class Code:
    def __reduce__(self):
        return os.mkdir, ("code_of_a_weight_file",)


def safetensors() -> bytes:
    head = json.dumps({"conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(4)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "no checkpoint")


BROKEN = {
    "none": (lambda path: None, "does not exist"),
    "folder": (lambda path: path.mkdir(), "does not exist"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("<html>not found</html>"), "cannot be read"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 9), "cannot be read"),
    "code": (lambda path: path.write_bytes(pickle.dumps({"conv1.weight": Code()})), "cannot be read"),
    "module": (lambda path: torch.save(ResNet(18), path), "cannot be read"),
    "safetensors": (lambda path: path.write_bytes(safetensors()), "cannot be read"),
    "zip": (archive, "cannot be read"),
    "half": (lambda path: half(path), "cannot be read"),
    "tensor": (lambda path: torch.save(torch.zeros(3), path), "expected a state dict or a checkpoint, got Tensor"),
}


def half(path: Path) -> None:
    torch.save(ResNet(18).state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_one_line(kind, tmp_path, monkeypatch):
    """As weights to start from, as a checkpoint and as a member of an ensemble; no code of theirs is run."""
    monkeypatch.chdir(tmp_path)
    write, message = BROKEN[kind]
    path = tmp_path / "a.pth"
    write(path)
    module = CocoPose(depth=18, head_channels=16)
    reads = [
        lambda: load_weights(PoseNet(17, 18, 16), path),
        lambda: read_checkpoint(path),
        lambda: module._member(path),
    ]
    for read in reads:
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            read()
        assert str(path) in str(error.value) and message in str(error.value) and "\n" not in str(error.value)
    assert not Path("code_of_a_weight_file").exists()


@pytest.mark.parametrize("option", ["--ckpt_path", "--model.weights"])
def test_the_command_says_it_in_one_line(option, tmp_path, capfd):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Code()}))
    assert main(["validate", "--trainer.accelerator=cpu", f"{option}={path}"]) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "sampling-argmax validate: " in line]
    assert f"{path} cannot be read: expected a file of torch.save with tensors and no code" in line


def test_what_is_no_state_dict_is_said(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"epoch": 3, "conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="a.pth: expected tensors by name, got int for 'epoch'"):
        load_weights(PoseNet(17, 18, 16), path)
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no tensor of .* fits the model, first key 'x'"):
        load_weights(PoseNet(17, 18, 16), path)
    with pytest.raises(
        ValueError, match="is no checkpoint of this trainer, which would have datamodule_hyper_parameters, "
    ):
        read_checkpoint(path)
    kinds = ("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "pytorch-lightning_version")
    torch.save({"task": "mtfl", **{kind: {} for kind in kinds}}, path)
    with pytest.raises(ValueError, match="a.pth is of task mtfl, not coco"):
        CocoPose(depth=18, head_channels=16)._member(path)


def as_baseline(key: str) -> str:
    """SimpleBaseline's name, whose head is named by its parts and whose backbone has no name."""
    if key.startswith("head.9."):
        return key.replace("head.9.", "final_layer.")
    return key.replace("head.", "deconv_layers.").replace("backbone.", "")


NAMES = {
    "own": lambda key: key,
    "lightning": lambda key: f"model.{key}",
    "parallel": lambda key: f"module.{key}",
    "parallel lightning": lambda key: f"module.model.{key}",
    "compiled": lambda key: f"_orig_mod.{key}",
    "lightning and compiled": lambda key: f"model._orig_mod.{key}",
    "parallel and compiled": lambda key: f"module._orig_mod.{key}",
    "baseline": as_baseline,
    "parallel baseline": lambda key: f"module.{as_baseline(key)}",
    "alphapose": lambda key: as_baseline(key) if key.startswith("head.") else key.replace("backbone.", "preact."),
    "mmpose": lambda key: f"keypoint_head.{as_baseline(key)}" if key.startswith("head.") else key,
}


@pytest.fixture(scope="module")
def nets() -> tuple[PoseNet, PoseNet]:
    return PoseNet(17, 18, 16), PoseNet(17, 18, 16)


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model"])
@pytest.mark.parametrize("names", NAMES)
def test_names_of_others_are_understood(names, wrapper, nets, tmp_path):
    """Every tensor arrives, and old files without a norm's count of batches are whole."""
    (source, model), path = nets, tmp_path / "a.pth"
    for x in model.state_dict().values():
        x.fill_(-3)
    state = {NAMES[names](key): value for key, value in source.state_dict().items() if "num_batches" not in key}
    torch.save({wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}} if wrapper else state, path)
    report = load_weights(model, path, strict=True)
    assert len(report["loaded"]) == len(state) and not any(report[k] for k in ("skipped", "mismatched", "missing"))
    assert all(torch.equal(x, model.state_dict()[key]) for key, x in source.state_dict().items() if "num_b" not in key)
    path.unlink()


@pytest.mark.parametrize(
    "make", [lambda: PoseNet(17, 18, 16), lambda: RegressionNet(17, 18)], ids=["maps", "positions"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.backbone."])
def test_a_head_that_is_not_loaded_is_missing(make, prefix, tmp_path):
    model, path = make(), tmp_path / "a.pth"
    state = dict(ResNet(18).state_dict(), **{"fc.weight": torch.zeros(3, 3), "layer1.0.conv1.weight": torch.zeros(1)})
    torch.save({prefix + key: value for key, value in state.items()}, path)
    report = load_weights(model, path)
    assert len(report["skipped"]) == 1 and report["skipped"][0].endswith("fc.weight")
    assert len(report["mismatched"]) == 1 and report["mismatched"][0].endswith("layer1.0.conv1.weight")
    head = {key for key in model.state_dict() if key.startswith("head.") and "num_batches" not in key}
    assert set(report["missing"]) == head | {"backbone.layer1.0.conv1.weight"} and len(head) > 1
    assert f"{len(head) + 1} missing" in start_from(model, path, False, 1.0)
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
    with pytest.raises(ValueError, match="does not fit the model: 1 skipped"):
        load_weights(model, path, strict=True)
