"""predict and visualize write as they go: memory does not grow with the inputs, and every input is one rank's."""

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.tasks.keypointnet.synthetic import draw_model
from sampling_argmax_cuda.tasks.oct.volume import write_volume
from sampling_argmax_cuda.trainers.data import TaskData
from sampling_argmax_cuda.trainers.predictions import inputs_of

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

OF_IMAGES = ["--model.depth=18", "--model.head_channels=16", "--data.image_size=[64,64]"]
OF_POINT_CLOUDS = ["--model.centers=[16,8,4,2]", "--model.width=0.1", "--objective.basis=gaussian"]
SMALL = {
    "associative": ["--model.stacks=1", "--model.channels=8", "--data.image_size=[64,64]"],
    "coco": OF_IMAGES,
    "h36m": [*OF_IMAGES, "--model.volume=16"],
    "keypointnet": OF_POINT_CLOUDS,
    "keypoints": [*OF_IMAGES, "--data.points=mtfl"],
    "mpii": [*OF_IMAGES[2:], "--model.stacks=1", "--model.channels=8"],
    "mtfl": OF_IMAGES,
    "oct": ["--model.width=4", "--data.rows=32"],
    "skeleton": OF_POINT_CLOUDS,
}
NAMED = {"keypointnet": "point_clouds", "skeleton": "point_clouds", "oct": "volumes"}


def write_inputs(task: str, folder: Path, count: int) -> list[str]:
    """So many files of a task; their names."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    kind = NAMED.get(task, "images")
    for i in range(count):
        path = folder / f"input{i:02d}.{'pcd' if kind == 'point_clouds' else 'vol' if kind == 'volumes' else 'png'}"
        if kind == "point_clouds":
            cloud, *_ = draw_model("chair", 64, rng)
            rows = "\n".join(" ".join(map(str, point)) for point in cloud)
            path.write_text(f"FIELDS x y z\nPOINTS {len(cloud)}\nDATA ascii\n{rows}\n")
        elif kind == "volumes":
            write_volume(path, rng.random((1, 48, 32)).astype(np.float32), (0.006, 0.1, 0.004))
        else:
            cv2.imwrite(str(path), rng.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    return sorted(path.name for path in folder.iterdir())


def arguments(task: str, folder: Path, run: Path, *more: str) -> list[str]:
    return ["--task", task, *SMALL[task], "--model.norm=frozen", f"--data.{NAMED.get(task, 'images')}={folder}",
            "--data.batch_size=1", "--data.num_workers=0", "--trainer.accelerator=cpu", "--trainer.devices=1",
            "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={run}", *more]  # fmt: skip


def written(run: Path) -> list[dict]:
    """The records of a run, which leaves nothing besides its overlays."""
    (path,) = run.rglob("predictions.json")
    assert not list(path.parent.glob(".predictions*"))
    return json.loads(path.read_text())


@pytest.mark.parametrize("task", TASKS)
def test_memory_does_not_grow_with_the_inputs(task, tmp_path, monkeypatch):
    """Of all the tensors that predictions hold, as many are alive at the last input as at the third."""
    names, module = write_inputs(task, tmp_path / "inputs", 7), TASKS[task][0]
    predict_step, references, alive = module.predict_step, [], []

    def watched(self, batch, index):
        gc.collect()
        alive.append(sum(reference() is not None for reference in references))
        output = predict_step(self, batch, index)
        references.extend(weakref.ref(value) for value in output.values() if isinstance(value, torch.Tensor))
        return output

    monkeypatch.setattr(module, "predict_step", watched)
    assert main(["predict", *arguments(task, tmp_path / "inputs", tmp_path / "run")]) == 0
    assert len(alive) == 7 and len(references) >= 7 * 4
    assert len(set(alive[2:])) == 1 and alive[-1] < len(references) / 3
    records = written(tmp_path / "run")
    assert [Path(record["file_name"]).name for record in records] == names


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("world", range(1, 5))
def test_every_input_is_one_ranks(count, world):
    """And ranks have equally many batches, so that none waits for another's."""
    seen, lengths = [], set()
    for rank in range(world):
        data = TaskData(batch_size=2, num_workers=0)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
        data.predict_data = [{"index": i} for i in range(count)]
        batches = [item["index"].tolist() for item in data.predict_dataloader()]
        lengths.add(sum(map(len, batches)))
        own = [i for batch in batches for i in batch if i % world == rank]
        assert own == sorted(own)
        seen += own
    assert sorted(seen) == list(range(count)) and lengths == {-(-count // world)}


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 5])
def test_two_ranks_write_one_file(count, tmp_path):
    names = write_inputs("coco", tmp_path / "inputs", count)
    assert main(["predict", *arguments("coco", tmp_path / "inputs", tmp_path / "one")]) == 0
    more = ("--trainer.devices=2", "--trainer.strategy=ddp")
    command = [sys.executable, "-m", "sampling_argmax_cuda", "predict"]
    done = subprocess.run([*command, *arguments("coco", tmp_path / "inputs", tmp_path / "two", *more)], timeout=300,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"wrote {count} predictions to ") == 1
    one, two = written(tmp_path / "one"), written(tmp_path / "two")
    assert [Path(record["file_name"]).name for record in two] == names
    assert [r["keypoints"] for r in two] == [pytest.approx(r["keypoints"], abs=1e-3) for r in one]
    assert sorted(p.name for p in (tmp_path / "two").rglob("predictions/*")) == [f"{name}.png" for name in names]


def test_maps_of_every_input_are_drawn(tmp_path, capfd):
    """Files of one stem have overlays of their own; files that are no images are told once."""
    write_inputs("coco", tmp_path / "inputs", 1)
    image = cv2.imread(str(tmp_path / "inputs" / "input00.png"))
    for name in ("input00.jpg", "input00.webp", "other.TIF"):
        cv2.imwrite(str(tmp_path / "inputs" / name), image)
    (tmp_path / "inputs" / "notes.txt").touch()
    assert main(["visualize", *arguments("coco", tmp_path / "inputs", tmp_path / "run")]) == 0
    names = ["input00.jpg", "input00.png", "input00.webp", "other.TIF"]
    assert [Path(record["file_name"]).name for record in written(tmp_path / "run")] == names
    drawn = {path.name for path in (tmp_path / "run").rglob("predictions/*")}
    assert drawn == {f"{name}{kind}.png" for name in names for kind in ("", "_maps")}
    assert capfd.readouterr().out.count("predict: 1 files left out, which are none of its inputs: notes.txt\n") == 1


def test_a_broken_input_leaves_no_file(tmp_path, capfd):
    write_inputs("coco", tmp_path / "inputs", 3)
    path = tmp_path / "inputs" / "input01.png"
    path.write_bytes(path.read_bytes()[:200])
    assert main(["predict", *arguments("coco", tmp_path / "inputs", tmp_path / "run")]) == 1
    assert f"sampling-argmax predict: image {path} cannot be read" in capfd.readouterr().err
    assert not list((tmp_path / "run").rglob("*predictions.*"))


def test_inputs_of_a_batch():
    batch = {"index": torch.tensor([4, 5]), "x": torch.arange(6).view(2, 3), "file_name": ["a", "b"]}
    first, second = inputs_of(batch)
    assert first["file_name"] == "a" and second["x"].tolist() == [[3, 4, 5]] and int(second["index"]) == 5
