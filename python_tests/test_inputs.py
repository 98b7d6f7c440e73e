"""What predict takes and what it leaves: videos, globs, lists, boxes of files and functions, tables; and going on."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from deployed import PEAKS, checkpoint, predicted, write_images

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.commands.unused import options_in, unused_options
from sampling_argmax_cuda.tasks.coco.task import CocoData
from sampling_argmax_cuda.trainers.boxes import found_boxes
from sampling_argmax_cuda.trainers.predictions import answers_of
from sampling_argmax_cuda.trainers.sources import Video, find_source

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

FRAMES = 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return checkpoint("coco", tmp_path_factory.mktemp("coco"), PEAKS)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A disc that moves over noise, without loss; its frames as images are in frames/."""
    folder = tmp_path_factory.mktemp("video")
    path, rng = folder / "disc.avi", np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 30.0, (64, 48))
    for i in range(FRAMES):
        frame = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 3)
        writer.write(cv2.circle(frame, (2 + i, 10 + i // 2), 6, (40, 200, 90), -1))
    writer.release()
    (folder / "frames").mkdir()
    for i, frame in enumerate(decoded(path)):
        cv2.imwrite(str(folder / "frames" / f"{i:03d}.png"), frame)
    return path


def decoded(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    while (frame := capture.read())[0]:
        yield frame[1]


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def given(trained: Path, images, *more: str) -> list[str]:
    return [f"--ckpt_path={trained}", f"--data.images={images}", "--data.batch_size=8", *more]


@pytest.fixture(scope="module")
def whole(trained, video, tmp_path_factory) -> Path:
    """The folder of a prediction on the video in one go."""
    folder = tmp_path_factory.mktemp("whole")
    predicted(folder, *given(trained, video))
    return folder


def test_a_video_is_its_frames(trained, video, whole, tmp_path):
    """Bit for bit, with the same batches; and every frame has its row."""
    records = json.loads((whole / "predictions.json").read_text())
    images = predicted(tmp_path, *given(trained, video.parent / "frames"))
    assert len(records) == len(images) == FRAMES
    for i, (record, image) in enumerate(zip(records, images, strict=True)):
        assert record["file_name"] == str(video) and record["frame"] == i and "frame" not in image
        assert all(record[name] == image[name] for name in ("keypoints", "spread", "score", "box", "names", "image_id"))
    assert len({tuple(record["keypoints"]) for record in records}) == FRAMES
    header, *rows = table(whole / "predictions.csv")
    assert header[:2] == ["frame", "instance"] and header[6:10] == [
        "nose_x",
        "nose_y",
        "nose_confidence",
        "nose_spread",
    ]
    assert [row[:6] for row in rows] == [
        [str(i), "0", "0.000000", "0.000000", "64.000000", "48.000000"] for i in range(FRAMES)
    ]
    for row, record in zip(rows, records, strict=True):
        own = np.array(row[6:], float).reshape(17, 4)
        assert np.allclose(own[:, :3], np.reshape(record["keypoints"], (17, 3)), rtol=0, atol=1e-6)
        assert np.allclose(own[:, 3], record["spread"], rtol=0, atol=1e-6)


def test_the_overlay_of_a_video(video, whole):
    """As many frames of the same size, with points where they were found; no picture a frame."""
    assert sorted(path.name for path in whole.iterdir()) == [
        "config.yaml", "disc_points.mp4", "predictions.csv", "predictions.json", "predictions_deeplabcut.csv"
    ]  # fmt: skip
    drawn, plain = list(decoded(whole / "disc_points.mp4")), list(decoded(video))
    assert len(drawn) == FRAMES and drawn[0].shape == (48, 64, 3)
    records = json.loads((whole / "predictions.json").read_text())
    for i in (0, 21, FRAMES - 1):
        x, y = (int(round(v)) for v in records[i]["keypoints"][:2])
        apart = np.abs(drawn[i].astype(int) - plain[i]).sum(-1)
        assert apart[y - 1 : y + 2, x - 1 : x + 2].mean() > 60 > np.median(apart)


STOP = """
import os, sys
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.trainers.files import RecordFile
write, count = RecordFile.write, 0
def stopping(self, number, record):
    global count
    count += isinstance(record, dict)  # a prediction, where a detector's answers are lists
    if count == 20:
        {how}
    write(self, number, record)
RecordFile.write = stopping
main(sys.argv[1:])
"""
KILLED = "self._file.write('19 {\"file'); self._file.flush(); os._exit(9)"  # in the middle of a line


@pytest.mark.parametrize("how, logged", [(KILLED, True), ("raise KeyboardInterrupt", False)])
def test_a_stopped_command_goes_on(how, logged, trained, video, whole, tmp_path, capfd):
    """Behind its last whole batch, in its own folder, to the same files byte for byte; another command does not."""
    common = [*given(trained, video), "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
              "--data.num_workers=0", f"--trainer.default_root_dir={tmp_path}"]  # fmt: skip
    common += [] if logged else ["--trainer.logger=false"]
    threads = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")}
    done = subprocess.run([sys.executable, "-c", STOP.replace("{how}", how), "predict", *common], timeout=300, env=threads,
                          capture_output=True, text=True)  # fmt: skip
    folder = tmp_path / "version_0" if logged else tmp_path
    assert done.returncode != 0 and len(list(folder.glob(".predictions-*"))) == 1
    assert not list(folder.glob("predictions*"))
    if not logged:
        assert f"predict: stopped; the same command goes on in {folder}" in done.stdout
    if logged:  # in a folder of its own
        assert main(["predict", *common, "--model.flip_test=false"]) == 0
        assert "goes on" not in capfd.readouterr().out and (tmp_path / "version_1" / "predictions.csv").is_file()
    assert main(["predict", *common]) == 0
    assert f"predict: goes on in {folder} after 16 of {FRAMES} inputs" in capfd.readouterr().out
    assert not list(tmp_path.rglob(".predictions*"))
    for name in ("predictions.csv", "predictions.json", "predictions_deeplabcut.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert len(list(decoded(folder / "disc_points.mp4"))) == FRAMES


FRAME_BOXES = {0: [[1, 2, 30, 40]], 3: [[5, 5, 20, 20.5], [30, 10, 30, 30]], FRAMES - 1: [[0, 0, 64, 48]]}


def boxes_as(kind: str, folder: Path) -> str:
    """The boxes on the video as predict takes them."""
    rows = [(frame, box) for frame, boxes in FRAME_BOXES.items() for box in boxes]
    if kind == "csv":
        lines = [",".join(map(str, (frame, *box, 0.5))) for frame, box in sorted(rows, key=lambda row: -row[0])]
        (folder / "boxes.csv").write_text("\n".join(["frame,x,y,w,h,score", *lines, ""]))
    elif kind == "json":
        content = [{"frame": frame, "bbox": box, "score": 0.5} for frame, box in rows]
        (folder / "boxes.json").write_text(json.dumps(content))
    else:
        (folder / "boxes_of_mine.py").write_text(
            f"FOUND, calls = {FRAME_BOXES!r}, []\n"
            "def find(image):\n"
            "    assert image.shape == (48, 64, 3) and image.dtype.name == 'uint8'\n"
            "    calls.append(image)\n"
            "    return [[*box, 0.5] for box in FOUND.get(len(calls) - 1, [])]\n"
        )
        return "boxes_of_mine:find"
    return str(folder / f"boxes.{kind}")


@pytest.fixture(scope="module")
def people(trained, video, tmp_path_factory) -> list[dict]:
    """Predictions on the boxes of the video's frames as images."""
    folder = tmp_path_factory.mktemp("people")
    listed = [{"file_name": f"{frame:03d}.png", "bbox": box} for frame, boxes in FRAME_BOXES.items() for box in boxes]
    (folder / "boxes.json").write_text(json.dumps(listed))
    return predicted(folder / "run", *given(trained, video.parent / "frames", f"--data.boxes={folder / 'boxes.json'}"))


@pytest.mark.parametrize("kind", ["csv", "json", "function"])
def test_boxes_on_a_video(kind, trained, video, people, tmp_path, monkeypatch):
    """Several on a frame or none; every frame has a row, and DeepLabCut's header its individuals."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "boxes_of_mine", raising=False)
    records = predicted(tmp_path / "run", *given(trained, video, f"--data.boxes={boxes_as(kind, tmp_path)}"))
    expected = [(frame, i, box) for frame, boxes in FRAME_BOXES.items() for i, box in enumerate(boxes)]
    assert [(r["frame"], r["instance"], r["box"]) for r in records] == expected
    assert all(record["box_score"] == 0.5 for record in records)
    assert [record["keypoints"] for record in records] == [record["keypoints"] for record in people]
    rows = table(tmp_path / "run" / "predictions.csv")[1:]
    assert len(rows) == FRAMES + 1 and [row[1] for row in rows[:6]] == ["0", "", "", "0", "1", ""]
    assert set(rows[1][1:]) == {""}
    scorer, individuals, bodyparts, coords, *rows = table(tmp_path / "run" / "predictions_deeplabcut.csv")
    assert scorer == ["scorer", *["sampling_argmax"] * 102]
    assert individuals == ["individuals", *["individual1"] * 51, *["individual2"] * 51]
    assert bodyparts[:5] == ["bodyparts", "nose", "nose", "nose", "left_eye"]
    assert coords == ["coords", *["x", "y", "likelihood"] * 34]
    assert [row[0] for row in rows] == [str(i) for i in range(FRAMES)] and {len(row) for row in rows} == {103}
    found = np.array([rows[3][1:52], rows[3][52:]], float)
    assert np.allclose(found, [record["keypoints"] for record in records[1:3]], atol=1e-4)
    assert set(rows[0][52:]) == {""} and set(rows[1][1:]) == {""} and "" not in rows[0][:52]


DETECTOR = """
from pathlib import Path
def find(image):
    with Path("asked.txt").open("a") as file:
        file.write("asked\\n")
    return [[1.1, 2, 30 + float(image[..., 1].mean()) / 7, 30]]
"""


def test_a_detector_is_asked_once(trained, video, tmp_path, monkeypatch, capfd):
    """Where the predictions were stopped, the command goes on with its boxes, to the same files; nothing else is left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_mine.py").write_text(DETECTOR)
    common = [*given(trained, video, "--data.boxes=of_mine:find"), "--trainer.accelerator=cpu", "--data.num_workers=0",
              "--trainer.enable_progress_bar=false"]  # fmt: skip
    stopped, whole = (f"--trainer.default_root_dir={tmp_path / name}" for name in ("stopped", "whole"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", STOP.replace("{how}", KILLED), "predict", *common, stopped], timeout=300,
                          env=environment, capture_output=True, text=True)  # fmt: skip
    asked = tmp_path / "asked.txt"
    assert done.returncode == 9 and len(asked.read_text().split()) == FRAMES, done.stderr
    for folder, times in ((stopped, 1), (whole, 2)):
        monkeypatch.delitem(sys.modules, "of_mine", raising=False)
        assert main(["predict", *common, folder]) == 0
        assert len(asked.read_text().split()) == times * FRAMES
    said = capfd.readouterr().out
    assert said.count(f"of_mine:find found {FRAMES} boxes in {FRAMES} images") == 2 and "after 16 of 40 inputs" in said
    assert not list(tmp_path.rglob(".boxes-*"))
    for name in ("predictions.csv", "predictions.json"):
        (one,), (two,) = (list((tmp_path / folder).rglob(name)) for folder in ("stopped", "whole"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("last", ["", "24 [[1.0, 2"])
def test_a_detector_goes_on_with_the_next_image(last, video, tmp_path, monkeypatch):
    """Where it was stopped itself, maybe in the middle of a line; a score and an image without boxes stay what they are."""
    source, notes, asked = find_source(video), tmp_path / "runs" / "boxes", []

    def find(image):
        asked.append(image)
        if len(asked) == 25:
            raise KeyboardInterrupt
        return [[1.1, 2, 3, 4, image.mean()]] if image.mean() % 1 > 0.5 else []

    monkeypatch.setattr("sampling_argmax_cuda.trainers.boxes.detector", lambda name: find)
    with pytest.raises(KeyboardInterrupt):
        found_boxes("a:b", source, notes)
    with notes.open("a") as file:
        file.write(last)
    found = found_boxes("a:b", source, notes)
    assert len(asked) == FRAMES + 1
    again = found_boxes("a:b", source, notes)  # about none
    assert len(asked) == FRAMES + 1
    expected = found_boxes("a:b", source)
    assert 0 < len(expected) < FRAMES
    for boxes in (found, again):
        assert [(b.image, b.box.tolist(), b.score) for b in boxes] == [
            (b.image, b.box.tolist(), b.score) for b in expected
        ]


def test_other_detectors_and_other_images_are_asked_anew(video, tmp_path, monkeypatch):
    """The file of answers is of the detector's code and of the images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one_of_mine.py").write_text(DETECTOR)
    trainer = SimpleNamespace(log_dir=None, default_root_dir=str(tmp_path), global_rank=0)
    other = tmp_path / "other.avi"
    other.write_bytes(video.read_bytes())
    names = [answers_of(trainer, "one_of_mine:find", find_source(path)).name for path in (video, other, video)]
    (tmp_path / "one_of_mine.py").write_text(DETECTOR + "# another\n")
    names.append(answers_of(trainer, "one_of_mine:find", find_source(video)).name)
    assert names[0] == names[2] and len(set(names)) == 3


def test_a_wrong_box_of_a_detector_leaves_nothing(trained, video, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong_of_mine.py").write_text(
        "n = []\ndef find(image):\n    n.append(1)\n    return [[1, 2, 3, 9 - len(n)]]\n"
    )
    more = ("--data.boxes=wrong_of_mine:find", f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert main(["predict", *given(trained, video, *more)]) == 1
    assert "wrong_of_mine:find: image 8: bbox must have a width and a height > 0" in capfd.readouterr().err
    assert not list(tmp_path.rglob(".boxes-*"))


def test_images_of_globs_and_lists(trained, tmp_path):
    """Images that are named in each way have the predictions of their folder; tables have their names."""
    write_images(tmp_path / "photos")
    (tmp_path / "names.txt").write_text("photos/a.png\nphotos/grey.png\n\n")
    folder = predicted(tmp_path / "folder", *given(trained, tmp_path / "photos"))
    header, *rows = table(tmp_path / "folder" / "predictions_deeplabcut.csv")[2:]
    assert header == ["coords", *["x", "y", "likelihood"] * 17]  # one individual has no row of individuals
    assert [row[0] for row in rows] == [str(tmp_path / "photos" / name) for name in ("a.png", "b.png", "grey.png")]
    by_name = {Path(record["file_name"]).name: record["keypoints"] for record in folder}
    for i, (images, names) in enumerate((
        (tmp_path / "p*s" / "*.png", ["a.png", "b.png", "grey.png"]),
        (tmp_path / "names.txt", ["a.png", "grey.png"]),
        (f"[{tmp_path}/photos/b.png,{tmp_path}/photos/a.png]", ["b.png", "a.png"]),
        (tmp_path / "photos" / "grey.png", ["grey.png"]),
    )):  # fmt: skip
        records = predicted(tmp_path / str(i), *given(trained, images))
        assert [Path(record["file_name"]).name for record in records] == names
        for record, name in zip(records, names, strict=True):
            assert record["keypoints"] == pytest.approx(by_name[name], abs=1e-4)


def test_bottom_up_people_have_tables_and_a_video_too(video, tmp_path):
    trained = checkpoint("associative", tmp_path)
    records = predicted(tmp_path / "run", *given(trained, video))
    assert len(records) == FRAMES and all(record["frame"] == i for i, record in enumerate(records))
    most = max(len(record["people"]) for record in records)
    rows = table(tmp_path / "run" / "predictions.csv")[1:]
    assert len(rows) == sum(max(1, len(record["people"])) for record in records) and most >= 0
    assert len(list(decoded(tmp_path / "run" / "disc_points.mp4"))) == FRAMES


def test_frames_are_exact_in_any_order(video):
    source, frames = Video(video), list(decoded(video))
    assert len(source) == FRAMES and source.rate == 30
    for i in (5, 6, 39, 0, 20, 20):
        assert np.array_equal(source.read(i)[..., ::-1], frames[i])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.mp4", b"no video", "predict: .*a.mp4 is neither an image, a list .* nor a video that OpenCV reads"),
        ("a.txt", b"b.png\n", "predict: image .*b.png of .*a.txt does not exist"),
        ("a.txt", b"\n", "predict: .*a.txt names no image"),
        ("*.png", None, r"predict: no image matches .*\*.png"),
        ("none", None, "predict: .*none is not a folder, nor a file, a glob or a list of images"),
    ],
)
def test_what_is_no_input(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        find_source(tmp_path / name)


WRONG_BOXES = [
    ("boxes.csv", "frame,x,y,w\n1,2,3,4\n", "boxes.csv: expected columns file_name or frame, x, y, w, h, got frame, x, y, w"),
    ("boxes.csv", "frame,x,y,w,h\n40,2,3,4,5\n", "boxes.csv: box 0: frame must be in 0 .. 39, got '40'"),
    ("boxes.csv", "frame,x,y,w,h\n1,2,3,4,5\n1,2,z,4,5\n", "boxes.csv: box 1: bbox must be 4 numbers"),
    ("boxes.csv", "frame,x,y,w,h\n1,2,3,0,5\n", "boxes.csv: box 0: bbox must have a width and a height > 0"),
    ("boxes.csv", "frame,x,y,w,h\n", "boxes.csv: no box"),
    ("boxes.json", '{"images": []}', "boxes.json: boxes of a video must be a list of {frame, bbox}, got dict"),
    ("boxes.json", '[{"file_name": "a", "bbox": [1, 2, 3, 4]}]', "boxes.json: box 0: field 'frame' is missing"),
    ("none_of_mine:find", None, "--data.boxes none_of_mine:find: No module named 'none_of_mine'"),
    ("json:find", None, "--data.boxes json:find: module json has no function find"),
    ("numpy:sum", None, "--data.boxes numpy:sum: image 0: expected boxes [m, 4] or [m, 5], got []"),
]  # fmt: skip


@pytest.mark.parametrize("name, content, message", WRONG_BOXES, ids=[w[2][:50] for w in WRONG_BOXES])
def test_wrong_boxes_are_named(name, content, message, video, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
        name = str(tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(message)):
        CocoData(images=str(video), boxes=name).to_predict()


def test_wrong_boxes_leave_no_file(trained, video, tmp_path, capfd):
    (tmp_path / "boxes.csv").write_text(WRONG_BOXES[1][1])
    more = (f"--data.boxes={tmp_path / 'boxes.csv'}", f"--trainer.default_root_dir={tmp_path / 'run'}")
    assert main(["predict", *given(trained, video, *more)]) == 1
    assert f"sampling-argmax predict: {tmp_path / WRONG_BOXES[1][2]}\n" in capfd.readouterr().err
    assert not list((tmp_path / "run").rglob("*predictions*"))


@pytest.mark.parametrize(
    "command, option",
    [("predict", "data.root"), ("predict", "data.synthetic"), ("visualize", "data.flip"), ("predict", "model.lr"),
     ("predict", "model.reduction"), ("validate", "data.images"), ("fit", "data.images"), ("validate", "model.optimizer")],
)  # fmt: skip
def test_options_that_a_command_does_not_use_are_refused(command, option, trained, tmp_path, capfd):
    """On the command line; a run's config, which has those of all commands, is taken. Its help shows none of them."""
    for written in ([f"--{option}=1"], [f"--{option}", "1"]):
        assert main([command, f"--ckpt_path={trained}", *written]) == 1
        assert f"sampling-argmax {command}: --{option} is not used by {command}\n" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = capfd.readouterr().out
    assert f"--{option} " not in shown and "--data.batch_size " in shown


@pytest.mark.parametrize("task", TASKS)
def test_every_option_is_some_commands(task):
    module, data = TASKS[task]
    names = {f"data.{name}" for name in options_in(data)}
    unused = {command: unused_options(command, module, data) for command in ("fit", "validate", "predict", "visualize")}
    assert data.inputs and data.inputs | data.shared <= options_in(data)
    assert unused["predict"] == unused["visualize"] and not unused["fit"] & unused["predict"] & names
