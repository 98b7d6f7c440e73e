"""What labelling tools export becomes the same samples, whichever of them wrote it."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import sleap_io
from labelling import (
    CONVERTED,
    NAMES,
    READ_AS_THEY_ARE,
    SIZE,
    TOOLS,
    VIDEOS,
    blank,
    export_of,
    region,
    table,
    task,
    write_rows,
)

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.keypoints.crops import KeypointCrops
from sampling_argmax_cuda.tasks.keypoints.exports.dataset import split_images
from sampling_argmax_cuda.tasks.keypoints.exports.deeplabcut import read_csv, read_deeplabcut, read_h5
from sampling_argmax_cuda.tasks.keypoints.exports.labelled import Export, Individual, LabelledImage
from sampling_argmax_cuda.tasks.keypoints.files import ImageFinder
from sampling_argmax_cuda.tasks.keypoints.task import KeypointData
from sampling_argmax_cuda.trainers.files import read_image

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

EXPORTS = Path(__file__).parent / "exports"  # written by pandas and PyTables, as DeepLabCut does


def convert(source: Path, folder: Path, *more: str) -> dict[str, dict]:
    """The annotations that a conversion writes, by split."""
    assert main(["convert", str(source), str(folder), *more]) == 0
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def samples(root: Path) -> dict[bytes, dict]:
    """Of every image, by its pixels, the sample without augmentation that training begins with."""
    data = KeypointData(root=str(root), image_size=(64, 64))
    truth, _ = data.train_split
    assert sorted(truth.points.names) == sorted(NAMES)
    crops = KeypointCrops(truth, ImageFinder(root, truth.path), "points", 1.25, (64, 64), (16, 16))
    order = [truth.points.names.index(name) for name in NAMES]
    found = {}
    for i in range(len(crops)):
        item = crops.sample(i, 0)
        found[crops.read(crops.records[i]).tobytes()] = {
            **{name: item[name][order] for name in ("target", "weight")}, "image": item["image"], "inverse": item["inverse"],
            "pairs": {frozenset(truth.points.names[i] for i in pair) for pair in truth.points.pairs},
        }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[bytes, dict]:
    found = samples(export_of("coco", tmp_path_factory.mktemp("reference")))
    assert len(found) == len(TOOLS)
    for tool in TOOLS:
        item = found[np.ascontiguousarray(tool.image[..., ::-1]).tobytes()]
        pixels = (item["inverse"] @ np.c_[item["target"] * 4, np.ones(4)].T).T
        assert (item["weight"] > 0).tolist() == tool.seen.tolist()
        assert np.abs(pixels - tool.points)[tool.seen].max() <= 1e-3
    return found


@pytest.mark.parametrize("kind", [*list(READ_AS_THEY_ARE)[1:], *CONVERTED])
def test_samples_are_equal_whoever_exported_them(kind, expected, tmp_path):
    """The crop, its way back, every target to a thousandth of a pixel, every weight, and the mirror."""
    root = export_of(kind, tmp_path)
    if kind in CONVERTED:
        content = convert(root, tmp_path / "out", "--val=0")
        assert set(content) == {"train"} and len(content["train"]["images"]) == len(TOOLS)
        assert [bone for own in content["train"]["categories"] for bone in own["skeleton"]] in (
            [],
            [[1, 2], [2, 3], [2, 4]],
        )
        root = tmp_path / "out"
    found = samples(root)
    assert found.keys() == expected.keys()
    for key, own in expected.items():
        assert np.abs(found[key]["target"] * 4 - own["target"] * 4).max() <= 1e-3
        assert np.array_equal(found[key]["weight"], own["weight"]) and found[key]["pairs"] == own["pairs"]
        assert np.abs(found[key]["inverse"] - own["inverse"]).max() <= 1e-3
        assert np.abs(found[key]["image"] - own["image"]).max() <= 0.02


SMALL = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false",
         "--trainer.enable_model_summary=false", "--data.num_workers=0")  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    ["sleap_package", *(pytest.param(kind, marks=pytest.mark.long) for kind in CONVERTED if kind != "sleap_package")],
)
def test_the_same_commands_train_and_deploy_them_all(kind, tmp_path, monkeypatch, capfd):
    """With no option but the folder; the others make the run small."""
    source = export_of(kind, tmp_path)
    monkeypatch.chdir(tmp_path)
    convert(source, Path("out"), "--val=0.25")
    small = ["--data.image_size=[64,64]", "--data.batch_size=6", "--model.head_channels=16", "--objective.num_samples=2",
             "--trainer.max_epochs=2"]  # fmt: skip
    assert main(["fit", "--config", "keypoints", "--data.root", "out", *small, *SMALL]) == 0
    assert main(["validate", "--ckpt_path=best", "--data.root=out", *SMALL]) == 0
    (image, *_) = Path("out/images").rglob("*.png")
    assert main(["predict", "--ckpt_path=best", f"--data.images={image.parent}", *SMALL]) == 0
    assert main(["export", "--ckpt_path=runs/checkpoints/best.ckpt", "--format=pt2", "--output=a.pt2"]) == 0
    said = capfd.readouterr().out
    assert "next: sampling-argmax fit --config keypoints --data.root out" in said
    assert "mirrored pairs: jaw_left | jaw_right" in said and "wrote 6 results" in said
    (records,) = [json.loads(path.read_text()) for path in Path("runs").rglob("predictions.json")]
    assert records and records[0]["names"] == list(NAMES) and Path("a.pt2").stat().st_size > 1e6


# ---- splits ----


def drawn_export(order: list[int], people: dict[int, list[str]] | None = None) -> Export:
    """Images of four videos; an individual a video, but where it is said."""
    export = Export(list(NAMES))
    for i in order:
        names = (people or {}).get(i, [f"mouse{i % 4}"])
        own = [Individual(np.full((4, 3), 2.0), name) for name in names]
        export.add(LabelledImage(f"{i}.png", Path(f"{i}.png"), own, f"video{i % 4}"))
    return export


@pytest.mark.parametrize("by", ["image", "video", "person"])
def test_a_split_is_of_names(by):
    """Not of their order; another seed splits otherwise, and no group is in both."""
    one = split_images(drawn_export(list(range(40))), 0.25, by, 0)
    two = split_images(drawn_export(list(range(39, -1, -1))), 0.25, by, 0)
    names = {split: {image.name for image in images} for split, images in one.items()}
    assert names == {split: {image.name for image in images} for split, images in two.items()}
    assert len(names["val"]) == 10 and len(names["train"]) == 30
    others = [split_images(drawn_export(list(range(40))), 0.25, by, seed)["val"] for seed in range(1, 9)]
    assert any({image.name for image in other} != names["val"] for other in others)
    groups = [{int(name[:-4]) % 4 for name in own} for own in names.values()]
    assert by == "image" or groups[0] | groups[1] == {0, 1, 2, 3} and not groups[0] & groups[1]


def test_people_on_one_image_are_split_together():
    """Also those that have met a third one."""
    met = {0: ["mouse0", "mouse1"], 1: ["mouse1", "mouse2"]}
    for seed in range(6):
        parts = split_images(drawn_export(list(range(40)), met), 0.5, "person", seed)
        assert {frozenset(int(image.name[:-4]) % 4 for image in own) for own in parts.values()} == {
            frozenset({3}),
            frozenset({0, 1, 2}),
        }
    with pytest.raises(ValueError, match="needs two individuals that share no image or more, got 1"):
        split_images(drawn_export(list(range(40)), met | {3: ["mouse3", "mouse0"]}), 0.5, "person", 0)


def test_shares_of_a_split():
    export = drawn_export(list(range(10)))
    assert [len(split_images(export, share, "image", 0).get("val", ())) for share in (None, 0, 0.01, 0.34, 0.99)] == [
        2,
        0,
        1,
        3,
        9,
    ]
    with pytest.raises(ValueError, match=r"--val 0.2 --by image needs two images or more, got 1; --val 0"):
        split_images(drawn_export([1]), 0.2, "image", 0)
    with pytest.raises(ValueError, match="--by person needs an export that names every person; --by image"):
        split_images(drawn_export([1, 2], {1: [None]}), 0.2, "person", 0)


def test_splits_of_the_export_stay(tmp_path):
    """But not where a share is asked for."""
    source = export_of("ultralytics", tmp_path)
    for kind in ("images", "labels"):
        (source / kind / "val").mkdir()
        for path in sorted((source / kind / "train").iterdir())[:5]:
            path.rename(source / kind / "val" / path.name)
    with (source / "data.yaml").open("a") as file:
        file.write("val: images/val\n")
    content = convert(source, tmp_path / "own")
    assert {split: len(own["images"]) for split, own in content.items()} == {"train": 19, "val": 5}
    assert sorted(image["file_name"] for image in content["val"]["images"]) == [
        f"images/images/val/img{i:03d}.png" for i in range(5)
    ]
    content = convert(source, tmp_path / "share", "--val=0.5")
    assert {split: len(own["images"]) for split, own in content.items()} == {"train": 12, "val": 12}


def test_videos_are_split_whole(tmp_path):
    content = convert(export_of("deeplabcut", tmp_path), tmp_path / "out", "--by=video", "--val=0.34")
    videos = [{image["video"] for image in own["images"]} for own in content.values()]
    assert sorted(map(len, videos)) == [1, 2] and videos[0] | videos[1] == set(VIDEOS)


# ---- each tool's own ----


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_hdf5_is_the_csv(kind):
    """Written by pandas 2.3 and PyTables 3.10, with paths in one column and in three."""
    one, two = read_h5(EXPORTS / f"deeplabcut_{kind}.h5"), read_csv(EXPORTS / f"deeplabcut_{kind}.csv")
    assert one.columns == two.columns and one.images == two.images == [
        f"labeled-data/vid é/img{i}.png" for i in (1, 2, 3)
    ]
    assert np.array_equal(one.values, two.values, equal_nan=True) and np.isnan(one.values).sum() == 2
    assert one.points() == ["tip", "jaw_left"] and one.people() == ([""] if kind == "single" else ["a", "b"])


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_individuals_are_those_that_sleap_io_reads(kind, tmp_path):
    """Where it reads them: with all images there. Its points are sorted."""
    folder = tmp_path / "labeled-data" / "vid é"
    folder.mkdir(parents=True)
    for i in (1, 2, 3):
        shutil.copy(blank(tmp_path / "a.png"), folder / f"img{i}.png")
    path = shutil.copy(EXPORTS / f"deeplabcut_{kind}.csv", folder / "CollectedData_me.csv")
    export, labels = read_deeplabcut([path], tmp_path), sleap_io.load_dlc(path)
    order = [export.names.index(name) for name in labels.skeletons[0].node_names]
    for image, frame in zip(export.images, labels, strict=True):
        assert Path(frame.video.filename[frame.frame_idx]).name == Path(image.name).name
        for own, theirs in zip(image.people, frame.instances, strict=True):
            points = np.where(own.points[:, 2:] > 0, own.points[:, :2], np.nan)[order]
            assert np.array_equal(points, theirs.numpy(), equal_nan=True)
            assert own.name == (theirs.track.name if theirs.track else None)


def test_a_missing_image_moves_no_labels(tmp_path, capsys):
    """It is left out and named, as is one on which nothing is labelled."""
    source = export_of("deeplabcut", tmp_path)
    first = next((source / "labeled-data" / VIDEOS[0]).glob("img000.png"))
    first.unlink()
    rows = table([tool for tool in TOOLS if tool.video == VIDEOS[0]], one=False)
    rows[-1][3:] = [""] * 8
    write_rows(source / "labeled-data" / VIDEOS[0] / "CollectedData_me.csv", rows)
    content = convert(source, tmp_path / "out", "--val=0")["train"]
    said = capsys.readouterr().out
    assert f"left out: 1 images that are not below {source} (labeled-data/{VIDEOS[0]}/img000.png)" in said
    assert f"left out: 1 images without a labelled point ({VIDEOS[0]}/img021.png)" in said
    points = {
        image["file_name"]: own["keypoints"]
        for image, own in zip(content["images"], content["annotations"], strict=True)
    }
    assert len(points) == len(TOOLS) - 2
    for tool in TOOLS:
        own = points.get(f"images/{tool.video}/{tool.name}")
        assert own is None or np.allclose(np.reshape(own, (4, 3))[tool.seen, :2], tool.points[tool.seen])


def test_points_of_the_scene_are_of_nobody(tmp_path, capsys):
    """DeepLabCut's unique body parts: an individual called single has them."""
    rows = [["scorer", *["me"] * 6], ["individuals", *["a"] * 2, *["b"] * 2, *["single"] * 2],
            ["bodyparts", *["tip"] * 4, *["corner"] * 2], ["coords", *["x", "y"] * 3],
            ["img.png", 1, 2, 3, 4, 5, 6]]  # fmt: skip
    write_rows(tmp_path / "src" / "labels.csv", rows)
    blank(tmp_path / "src" / "img.png")
    content = convert(tmp_path / "src", tmp_path / "out", "--val=0")["train"]
    assert content["categories"][0]["keypoints"] == ["tip"]
    assert [(own["individual"], own["keypoints"]) for own in content["annotations"]] == [
        ("a", [1, 2, 2]),
        ("b", [3, 4, 2]),
    ]
    assert "left out: 1 points that no individual has (corner)" in capsys.readouterr().out


def test_frames_of_a_video_of_sleap(tmp_path, capsys):
    """Decoded as predict decodes them; predictions and points that nobody placed are no labels."""
    path = tmp_path / "before" / "clip.avi"
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 10, (SIZE, SIZE))
    for tool in TOOLS[:6]:
        writer.write(tool.image)
    writer.release()
    skeleton, video, track = (
        sleap_io.Skeleton(list(NAMES)),
        sleap_io.Video.from_filename(str(path)),
        sleap_io.Track("m"),
    )
    user = sleap_io.Instance.from_numpy(np.arange(8.0).reshape(4, 2), skeleton=skeleton, track=track)
    user.points["visible"][1] = False
    network = sleap_io.PredictedInstance.from_numpy(np.ones((4, 2)), skeleton=skeleton, score=0.5)
    frames = [
        sleap_io.LabeledFrame(video=video, frame_idx=i, instances=own)
        for i, own in ((4, [user, network]), (2, [network]))
    ]
    (tmp_path / "src").mkdir()
    sleap_io.Labels(frames, skeletons=[skeleton]).save(str(tmp_path / "src" / "labels.slp"), verbose=False)
    path.parent.rename(tmp_path / "videos")
    content = convert(tmp_path / "src", tmp_path / "out", "--val=0", f"--images={tmp_path / 'videos'}")["train"]
    (image,), (own,) = content["images"], content["annotations"]
    assert image["file_name"] == "images/clip/000004.png" and image["video"] == "clip" and own["individual"] == "m"
    assert own["keypoints"] == [0, 1, 2, 0, 0, 0, 4, 5, 2, 6, 7, 2]
    assert "1 images with predictions of a network alone (clip/000002.png)" in capsys.readouterr().out
    assert np.array_equal(read_image(tmp_path / "out" / image["file_name"]), TOOLS[4].image[..., ::-1])


def test_colours_of_a_package_stay(tmp_path):
    """SLEAP's file has images of its own, which are neither turned to grey nor from RGB to BGR."""
    convert(export_of("sleap_package", tmp_path), tmp_path / "out", "--val=0")
    for tool in TOOLS[:3]:
        assert np.array_equal(read_image(tmp_path / "out" / "images" / tool.video / tool.name), tool.image[..., ::-1])


def label_studio(folder: Path, *tasks: dict) -> Path:
    folder.mkdir()
    blank(folder / "a.png")
    (folder / "b").mkdir()
    blank(folder / "b" / "b.png")
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder


def two_tools(**more) -> list[dict]:
    """Regions of two boxes that overlap, with a point each where both are, and one of the first box in the second alone."""
    boxes = [
        region("rectanglelabels", f"box{i}", "tool", x=10 + 20 * i, y=10, width=40, height=40, rotation=0)
        for i in (0, 1)
    ]
    points = [
        region("keypointlabels", f"p{i}", "tip", x=40, y=20 + 10 * i, **own) for i, own in enumerate(more["owners"])
    ]
    return [
        *boxes,
        *points,
        region("keypointlabels", "p2", "end", x=65, y=20, **more["owners"][0]),
        region("keypointlabels", "q0", "base", x=15, y=15),
        region("keypointlabels", "q1", "base", x=65, y=45),
    ]


@pytest.mark.parametrize("way", ["relation", "parent"])
def test_points_are_of_the_box_that_they_are_joined_with(way, tmp_path):
    """And without that, of the only box around them."""
    own = task(1, "a.png", np.full((0, 2), np.nan))
    relations = [{"type": "relation", "from_id": f"p{i}", "to_id": f"box{i}", "direction": "right"} for i in (0, 1)]
    relations.append({"type": "relation", "from_id": "box0", "to_id": "p2", "direction": "right"})
    owners = [{}, {}] if way == "relation" else [{"parentID": "box0"}, {"parentID": "box1"}]
    own["annotations"][0]["result"] = two_tools(owners=owners) + (relations if way == "relation" else [])
    content = convert(label_studio(tmp_path / "src", own), tmp_path / "out", "--val=0")["train"]
    assert (
        content["categories"][0]["keypoints"] == ["tip", "end", "base"] and content["categories"][0]["name"] == "tool"
    )
    scale, found = SIZE / 100, [(own["keypoints"], own["bbox"]) for own in content["annotations"]]
    assert [np.divide(points, [scale, scale, 1] * 3).round(6).tolist() for points, _ in found] == [
        [40, 20, 2, 65, 20, 2, 15, 15, 2],
        [40, 30, 2, 0, 0, 0, 65, 45, 2],
    ]
    assert np.allclose([box for _, box in found], scale * np.array([[10, 10, 40, 40], [30, 10, 40, 40]]))


def test_what_label_studio_leaves_open_is_named(tmp_path, capsys):
    """Points of two objects that nothing tells apart, work of a second annotator, other regions, a missing image."""
    twice, second, plain = (task(i, "a.png" if i < 3 else "b/b.png", np.ones((1, 2))) for i in (1, 2, 3))
    twice["annotations"][0]["result"] *= 2
    second["data"]["image"] = "s3://bucket/c.png"
    plain["annotations"] = [
        {"id": 1, "was_cancelled": True, "result": []}, {"id": 2, "result": []},
        {"id": 3, "ground_truth": True, "result": [*plain["annotations"][0]["result"], {"id": "x", "type": "brushlabels"}]},
    ]  # fmt: skip
    content = convert(label_studio(tmp_path / "src", twice, second, plain), tmp_path / "out", "--val=0")["train"]
    assert [image["file_name"] for image in content["images"]] == ["images/b/b.png"]
    said = capsys.readouterr().out
    for line in ("1 objects on which a point is marked twice", "1 annotations of images that have another one",
                 "1 regions that are neither points nor boxes", "export.json: task 3: brushlabels",
                 "1 images without a labelled point (a.png)",
                 f"1 images that are not below {tmp_path / 'src'} (c.png)"):  # fmt: skip
        assert line in said


def test_points_of_ultralytics_without_names(tmp_path, capsys):
    """Hidden points stay hidden, two numbers a point are enough, and a point file has the mirror that names do not tell."""
    source = export_of("ultralytics", tmp_path)
    labels = sorted((source / "labels" / "train").iterdir())
    labels[0].write_text("0 0.5 0.5 0.5 0.25 0.5 0.25 1 0 0 0 0.75 0.5 2 0.5 0.5 2\n\n0 0.5 0.5 0.1 0.1\n")
    labels[1].unlink()
    layout = (source / "data.yaml").read_text().splitlines()
    (source / "data.yaml").write_text("\n".join(text for text in layout if not text.startswith("kpt_names")))
    content = convert(source, tmp_path / "out", "--val=0")["train"]
    assert content["annotations"][0]["keypoints"] == [32, 16, 1, 0, 0, 0, 48, 32, 2, 32, 32, 2]
    assert content["annotations"][0]["bbox"] == [16, 24, 32, 16] and content["annotations"][0]["area"] == 512
    said = capsys.readouterr().out
    assert f"--data.root {tmp_path / 'out'} --data.points {tmp_path / 'out' / 'points.yaml'}" in said
    assert "1 boxes without points" in said and "1 images without a file of labels (images/train/img001.png)" in said
    data = KeypointData(root=str(tmp_path / "out"), points=str(tmp_path / "out" / "points.yaml"))
    assert data.landmarks.names == ("point_1", "point_2", "point_3", "point_4")
    assert data.landmarks.pairs == ((2, 3),) and data.landmarks.bones == ((0, 1), (1, 2), (1, 3))
