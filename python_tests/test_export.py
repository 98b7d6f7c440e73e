"""Exported files: what the predictor gives, without this package, for every objective; and the page that says how."""

import json
import re
import subprocess
import sys
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from deployed import BOXES, PEAKS, checkpoint, write_images

from sampling_argmax_cuda import load
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.calibration.calibration import Calibration, Radius
from sampling_argmax_cuda.objectives import OBJECTIVES, make_objective
from sampling_argmax_cuda.objectives.answers import OutputWithSigma
from sampling_argmax_cuda.trainers.exporting import OUTPUTS, traced, write_onnx, write_pt2
from sampling_argmax_cuda.trainers.landmarks import Landmarks
from sampling_argmax_cuda.trainers.predictor import Predictor
from sampling_argmax_cuda.trainers.reading import LandmarkReader, Prediction
from sampling_argmax_cuda.trainers.transforms import CropRule
from sampling_argmax_cuda.trainers.tta import TestTimeAugmentation

pytestmark = pytest.mark.written_memory  # the exporters' own tools read memory that they did not write

PAGE = (Path(__file__).parents[1] / "docs" / "deploy.md").read_text()
OF_ONNX = (
    "import numpy as np, onnxruntime, sys\n"
    "run = lambda x: onnxruntime.InferenceSession(sys.argv[1]).run(None, {'images': x})\n"
)
OF_PT2 = (
    "import numpy as np, sys, torch\n"
    "network = torch.export.load(sys.argv[1]).module()\n"
    "run = lambda x: [y.detach().numpy() for y in network(torch.from_numpy(x)).values()]\n"
)
FLIP = {"onnx": (None, False), "pt2": (False, True)}  # of each file, and what it is not
SAVE = (
    "for n in (1, 5): np.savez(f'out{n}.npz', *run(np.load('in.npy')[:n]))\n"
    "assert 'sampling_argmax_cuda' not in sys.modules\n"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return checkpoint("coco", tmp_path_factory.mktemp("coco"), PEAKS)


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory) -> dict[str, Path]:
    """One file of each format, as the command writes them."""
    folder = tmp_path_factory.mktemp("files")
    for kind, more in (("onnx", []), ("pt2", ["--flip_test=false"])):
        given = [f"--ckpt_path={trained}", f"--format={kind}", f"--output={folder / f'a.{kind}'}", *more]
        assert main(["export", *given]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a.onnx", "a.pt2"]
    return {kind: folder / f"a.{kind}" for kind in ("onnx", "pt2")}


def same(found, expected: Prediction) -> None:
    """Positions in pixels within 1e-4, covariances relative to the largest."""
    positions, confidence, covariance = (torch.as_tensor(x) for x in found)
    assert (positions - expected.positions).abs().max() <= 1e-4
    assert (confidence - expected.confidence).abs().max() <= 1e-5 * max(1, expected.confidence.abs().max())
    assert torch.allclose(covariance, expected.covariance, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("kind, code", [("onnx", OF_ONNX), ("pt2", OF_PT2)])
def test_a_file_runs_without_this_package(files, kind, code, trained, tmp_path):
    """In a process that knows nothing of it, for any number of images, with the mirrored pass or without."""
    crops = np.random.default_rng(0).normal(size=(5, 3, 64, 64)).astype(np.float32)
    np.save(tmp_path / "in.npy", crops)
    done = subprocess.run([sys.executable, "-I", "-c", code + SAVE, str(files[kind])], cwd=tmp_path, capture_output=True,
                          text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with torch.inference_mode():
        one, other = (
            load(trained, device="cpu", flip_test=flip).reader(torch.from_numpy(crops)) for flip in FLIP[kind]
        )
    for count in (1, 5):
        with np.load(tmp_path / f"out{count}.npz") as found:
            same([found[f"arr_{i}"] for i in range(3)], Prediction(*(x[:count] for x in one)))
    assert (one.positions - other.positions).abs().max() > 1


def test_the_lines_of_the_page_prepare_what_the_predictor_does(files, trained, tmp_path, monkeypatch, capfd):
    """Run as they stand: ten lines of NumPy, then those around the two files; of a calibrated checkpoint, too."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    of_load, prepare, of_onnx, of_pt2 = (block for block in blocks)
    (tmp_path / "runs" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "checkpoints" / "best.ckpt").symlink_to(trained)
    for kind in files:
        (tmp_path / f"points.{kind}").symlink_to(files[kind])
    arrays = write_images(tmp_path / "photos")
    (tmp_path / "face.png").symlink_to(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(re.search(r"def prepare.*", prepare, re.S)[0].splitlines()) <= 10
    names: dict = {}
    exec(of_load, names)
    assert names["positions"].shape == (1, 17, 2)
    exec(prepare, names)
    without = load(trained, device="cpu", flip_test=False)
    for name, boxes in BOXES.items():
        for box in boxes:
            expected, plain = (predictor([arrays[name]], [box]) for predictor in (names["predictor"], without))
            names |= {"image": arrays[name], "box": box}
            exec(of_onnx, names)
            crop, _ = names["predictor"].rule.input(np.ascontiguousarray(arrays[name]), box)
            assert np.abs(names["images"] - crop).max() <= 1e-5
            same(
                (names["positions"], names["confidence"], names["covariance"]),
                Prediction(*map(torch.as_tensor, expected)),
            )
            exec(of_pt2, names)
            in_image = names["corner"] + names["scale"] * names["found"]["positions"].detach().numpy()
            assert np.abs(in_image - plain.positions).max() <= 1e-4
    sure = tmp_path / "calibrated.ckpt"
    state = calibration_of("px").state() | {"reading": {"flip_test": False}}
    torch.save(torch.load(trained, weights_only=True) | {"calibration": state}, sure)
    (tmp_path / "points.onnx").unlink()
    assert main(["export", f"--ckpt_path={sure}", "--format=onnx", "--output=points.onnx"]) == 0
    assert "calibrated with --flip_test False, not True: confidences may be off" in capfd.readouterr().out
    exec(of_onnx, names)
    expected = Prediction(*map(torch.as_tensor, load(sure, device="cpu")([arrays[name]], [box])))
    assert 0.3 < expected.confidence.min() < expected.confidence.max() - 1e-3
    same((names["positions"], names["confidence"], names["covariance"]), expected)
    told = json.loads(names["session"].get_modelmeta().custom_metadata_map["sampling_argmax"])
    assert list(told["input"]) == ["images", "scale"] and told["output"]["confidence"].endswith(
        "that the error is below 4 px"
    )


def test_a_file_says_what_it_is(files, trained):
    told = json.loads(
        onnxruntime.InferenceSession(files["onnx"]).get_modelmeta().custom_metadata_map["sampling_argmax"]
    )
    extra = {"sampling_argmax": ""}
    torch.export.load(files["pt2"], extra_files=extra)
    assert told["flip_test"] is True and told | {"flip_test": False} == json.loads(extra["sampling_argmax"])
    assert told["names"] == list(load(trained, device="cpu").names) and ["left_eye", "right_eye"] in told["pairs"]
    assert told["crop"] == {
        "image_size": [64, 64],
        "padding": 1.25,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    session = onnxruntime.InferenceSession(files["onnx"])
    assert [(x.name, x.shape) for x in session.get_inputs()] == [("images", ["batch", 3, 64, 64])]
    assert [x.name for x in session.get_outputs()] == list(OUTPUTS)


class Answers(torch.nn.Module):
    """What one layer of maps says in the way that an objective reads."""

    def __init__(self, maps: torch.nn.Module, objective) -> None:
        super().__init__()
        self.maps, self.regresses, self.widths = maps, objective.regresses, objective.predicts_sigma

    def forward(self, images):
        maps = self.maps(images)
        output = maps[..., 5, 2:4] if self.regresses else maps
        return OutputWithSigma(output, maps[..., 3, 4:6].sigmoid()) if self.widths else output


class Readers(torch.nn.Module):
    """Readers of objectives, by coordinates and by maps, over one network, as one."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        maps = torch.nn.Conv2d(3, 3, 4, 4)
        torch.nn.init.normal_(maps.weight)
        self.readers = torch.nn.ModuleDict()
        for name in names:
            for average in OBJECTIVES[name].averages:
                objective = make_objective(name)
                tta = TestTimeAugmentation([1, 0, 2], flip=average == "maps", average=average)
                self.readers[f"{name}_{average}"] = LandmarkReader(Answers(maps, objective), objective, tta)
        fields = [f"{name}_{field}" for name in self.readers for field in OUTPUTS]
        self.answer = namedtuple("Answer", fields)

    def forward(self, images):
        return self.answer(*(part for reader in self.readers.values() for part in reader(images)))


def graph_of(names: Sequence[str]) -> tuple[torch.export.ExportedProgram, torch.Tensor, dict[str, Prediction]]:
    """One graph of objectives, images, and what they answer."""
    readers = Readers(names).eval()
    images = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = {name: reader(images) for name, reader in readers.readers.items()}
    return traced(readers, (96, 64)), images, expected


def same_of_all(found, expected: dict[str, Prediction]) -> None:
    found = [torch.as_tensor(x) for x in found]
    assert len(found) == 3 * len(expected)
    for i, own in enumerate(expected.values()):
        same(found[3 * i : 3 * i + 3], own)


def test_every_objective_is_exported(tmp_path):
    """And the graph has none of this package's operators."""
    program, images, expected = graph_of(tuple(OBJECTIVES))
    assert not [node for node in program.graph.nodes if "sampling_argmax" in str(node.target)]
    for name, own in expected.items():
        assert own.covariance.isfinite().all() or name == "direct_coords"
        assert own.positions.std() > 1 and own.positions.isfinite().all()
    write_pt2(program, {}, tmp_path / "a.pt2")
    same_of_all(torch.export.load(tmp_path / "a.pt2").module()(images).values(), expected)


@pytest.mark.parametrize(
    "names", [("heatmap", "rle"), pytest.param(tuple(OBJECTIVES), marks=pytest.mark.long)], ids=len
)
def test_every_objective_runs_in_onnxruntime(names, tmp_path):
    program, images, expected = graph_of(names)
    write_onnx(program, {}, tmp_path / "a.onnx")
    same_of_all(onnxruntime.InferenceSession(tmp_path / "a.onnx").run(None, {"images": images.numpy()}), expected)


def calibration_of(unit: str) -> Calibration:
    """A calibration in which confidences differ from point to point."""
    return Calibration(Radius(4.0, unit), 1.5, (0.1, 2.0, 8.0, 30.0), (0.9, 0.7, 0.5, 0.2))


@pytest.mark.parametrize("unit", ["px", "%"])
def test_calibrated_confidences_are_in_both_files(unit, tmp_path):
    """Those of the predictor, of crops that are larger and smaller than their boxes; without the package's operators."""
    objective = make_objective("sampling")
    torch.manual_seed(0)
    maps = torch.nn.Conv2d(3, 3, 4, 4)
    torch.nn.init.normal_(maps.weight)
    reader = LandmarkReader(Answers(maps, objective), objective, TestTimeAugmentation([1, 0, 2], flip=True)).eval()
    landmarks, rule = Landmarks(("a", "b", "c"), ((0, 1),), ()), CropRule((96, 64), 1.25)
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(90, 120, 3)), (0, 0), 5)
    image = np.uint8(255 * (noise - noise.min()) / np.ptp(noise))
    boxes = np.array([[5, 6, 40, 50], [0, 0, 119, 88], [60.5, 20, 12, 15]])
    expected = Predictor(reader, landmarks, rule, "cpu", calibration=calibration_of(unit))([image], [boxes])
    crops, inverse = map(np.stack, zip(*(rule.input(image, box) for box in boxes), strict=True))
    scale = inverse[:, 0, 0]
    inputs = [crops, scale][: 1 + (unit == "px")]
    program = traced(reader, (96, 64), calibration_of(unit))
    assert not [node for node in program.graph.nodes if "sampling_argmax" in str(node.target)]
    write_pt2(program, {}, tmp_path / "a.pt2")
    write_onnx(program, {}, tmp_path / "a.onnx")
    of_pt2 = torch.export.load(tmp_path / "a.pt2").module()(*map(torch.from_numpy, inputs)).values()
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    of_onnx = session.run(None, dict(zip(["images", "scale"], inputs, strict=False)))
    assert len(session.get_inputs()) == len(inputs)
    assert np.ptp(expected.confidence) > 0.05
    for found in (of_pt2, of_onnx):
        _, confidence, covariance = (torch.as_tensor(x).detach() for x in found)
        assert np.abs(confidence.numpy() - expected.confidence).max() <= 1e-4
        assert np.allclose(covariance * scale[:, None, None, None] ** 2, expected.covariance, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_exported(tmp_path, capsys):
    given = ["--format=pt2", f"--output={tmp_path / 'a.pt2'}"]
    assert main(["export", f"--ckpt_path={tmp_path / 'none.ckpt'}", *given]) == 1
    assert "sampling-argmax export: --ckpt_path: " in capsys.readouterr().err
    trained = checkpoint("keypointnet", tmp_path)
    capsys.readouterr()
    assert main(["export", f"--ckpt_path={trained}", *given]) == 1
    assert "is of task keypointnet, which does not find points in boxes of images" in capsys.readouterr().err
    assert not (tmp_path / "a.pt2").exists()
    with pytest.raises(SystemExit):
        main(["export", f"--ckpt_path={trained}", "--format=tflite", "--output=a"])
    assert "invalid choice: 'tflite' (choose from" in capsys.readouterr().err


def test_a_missing_exporter_is_named(trained, tmp_path):
    code = (
        "import sys; sys.modules['onnxscript'] = None\n"
        "from sampling_argmax_cuda.__main__ import main\n"
        f"sys.exit(main(['export', '--ckpt_path={trained}', '--format=onnx', '--output={tmp_path / 'a.onnx'}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and not (tmp_path / "a.onnx").exists()
    assert done.stderr.strip().splitlines()[-1] == (
        "sampling-argmax export: package 'onnxscript' is not installed; run: pip install 'sampling-argmax-cuda[export]'"
    )
