"""Point sets: mirrored pairs of names, point files with a message for every fault, and those of the package."""

import numpy as np
import pytest
import yaml

from sampling_argmax_cuda.trainers.landmarks import SIGMA, Landmarks, landmarks_of
from sampling_argmax_cuda.trainers.points import (
    package_files,
    package_points,
    pairs_of,
    read_points,
    recognised,
    same_names,
)

SIDES = [
    ("left_eye", "right_eye"), ("eye_left", "eye_right"), ("l_eye", "r_eye"), ("eye_l", "eye_r"), ("eye_L", "eye_R"),
    ("L_eye", "R_eye"), ("LEye", "REye"), ("eyeL", "eyeR"), ("leftEye", "rightEye"), ("LeftEye", "RightEye"),
    ("Left Eye", "Right Eye"), ("left-eye", "right-eye"), ("eye.L", "eye.R"), ("leftear", "rightear"),
    ("earleft", "earright"), ("front_l_paw", "front_r_paw"), ("paw_L1", "paw_R1"), ("left1", "right1"), ("LEFT_EYE", "RIGHT_EYE"),
    ("l", "r"), ("left", "right"), ("\u76ee_left", "\u76ee_right"),
]  # fmt: skip
ALONE = [
    ("nose", "tail"), ("left_eye", "right_ear"), ("left_eye", "eye_right"), ("left_1", "right_2"), ("bright", "upright"),
    ("lear", "rear"), ("leg", "reg"), ("l_eye", "left_eye"),
]  # fmt: skip


@pytest.mark.parametrize("left, right", SIDES)
def test_names_that_differ_in_the_side_are_a_pair(left, right):
    assert pairs_of([left, right]) == ((0, 1),) == pairs_of([right, left])
    assert pairs_of(["nose", left, "tail", right]) == ((1, 3),)


@pytest.mark.parametrize("a, b", ALONE)
def test_other_names_are_none(a, b):
    assert pairs_of([a, b]) == ()


def test_names_that_could_be_of_several_pairs_are_none():
    assert pairs_of(["left_eye", "leftEye", "right_eye"]) == ()
    assert pairs_of(["left_of_right_arm", "right_of_left_arm", "left_of_left_arm"]) == ((0, 1),)


@pytest.mark.parametrize("name", ["coco", "mpii"])
def test_names_tell_the_pairs_of_the_papers_people(name):
    points = package_points(name)
    assert {frozenset(pair) for pair in pairs_of(points.names)} == {frozenset(pair) for pair in points.pairs}


def test_faces_of_68_have_pairs_that_their_names_would_get_wrong():
    """The mirror of a drawn symmetric face: corners of eyes and mouth, ends of the jaw."""
    points = package_points("face_68")
    assert len(points) == 68 and len(points.pairs) == 29
    mirrored = points.mirrored()
    for a, b in (
        (0, 16),
        (8, 8),
        (17, 26),
        (30, 30),
        (36, 45),
        (39, 42),
        (41, 46),
        (48, 54),
        (51, 51),
        (57, 57),
        (60, 64),
    ):
        assert mirrored[a] == b and mirrored[b] == a
    by_name = Landmarks(points.names, pairs_of(points.names), ()).mirrored()
    assert by_name[36] == 42


def test_point_sets_of_the_package():
    assert sorted(package_files()) == ["coco", "face_68", "mpii", "mtfl"]
    for name, count in (("coco", 17), ("mpii", 16), ("mtfl", 5), ("face_68", 68)):
        points = package_points(name)
        assert len(points) == count and recognised(points.names) == name
        assert landmarks_of(points.as_mapping(), "here") == points  # as checkpoints have them
        assert [points.mirrored()[i] for i in points.mirrored()] == list(range(count))  # twice mirrored is not mirrored
    from pycocotools.cocoeval import Params

    assert np.allclose(package_points("coco").sigmas, Params("keypoints").kpt_oks_sigmas)
    assert package_points("mtfl").sigmas == (SIGMA,) * 5
    assert recognised(["Left Eye", "right-eye", "NOSE", "mouthLeft", "mouth_right"]) == "mtfl"
    assert recognised(["a", "b"]) is None


def test_same_names():
    assert same_names(["Left Eye"], ["left_eye"]) and not same_names(["left_eye"], ["right_eye"])
    assert not same_names(["a"], ["a", "b"])


@pytest.mark.parametrize(
    "content, message",
    [
        ("names: [a, b\n", r"--data.points .*own.yaml: line 2: "),
        ("just words", "expected names, pairs, skeleton, sigmas or upper, got str"),
        ("joints: [a]", r"own.yaml: unknown key 'joints' \(known: names, pairs, skeleton, sigmas, upper, aliases\)"),
        ("names: a", "names must be a list of names, got 'a'"),
        ("names: [1, 2]", r"names must be a list of names, got \[1, 2\]"),
        ("names: [a, b, a]", "names: 'a' is there twice"),
        ("pairs: [[a]]", r"pairs must be a list of two different names each, got \[\['a'\]\]"),
        ("pairs: [a, b]", "pairs must be a list of two different names each"),
        ("skeleton: [[a, a]]", "skeleton must be a list of two different names each"),
        ("sigmas: [0.1, 0]", r"sigmas must be numbers > 0, got \[0.1, 0\]"),
        ("sigmas: wide", "sigmas must be numbers > 0, got 'wide'"),
    ],
)
def test_faults_of_point_files_are_named(tmp_path, content, message):
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_points(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "here: names are missing"),
        ({"names": ["a", "b"], "pairs": [["a", "c"]]}, r"here: pairs: no point is named 'c' \(names: a, b\)"),
        ({"names": ["a", "b"], "skeleton": [["d", "b"]]}, "here: skeleton: no point is named 'd'"),
        ({"names": ["a", "b"], "upper": ["e"]}, "here: upper: no point is named 'e'"),
        ({"names": ["a", "b", "c"], "pairs": [["a", "b"], ["b", "c"]]}, "pairs: 'b' is in more than one place"),
        ({"names": ["a", "b"], "sigmas": [0.1]}, "sigmas must be a number or 2 numbers, got 1"),
    ],
)
def test_faults_of_point_sets_are_named(content, message):
    with pytest.raises(ValueError, match=message):
        landmarks_of(content, "here")


def test_missing_point_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"--data.points hand: no file, and no point set .* \(coco, face_68, mpii, mtfl\)"
    ):
        read_points("hand")


def test_what_is_left_out(tmp_path):
    """Sigmas are 0.05 each, or one number for all; pairs that are not said are not known, which no empty list is."""
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"names": ["a", "b"], "sigmas": 0.1}))
    points = landmarks_of(read_points(path), "here")
    assert points.sigmas == (0.1, 0.1) and points.pairs is None and points.mirrored() == [0, 1]
    assert landmarks_of({"names": ["a", "b"], "pairs": []}, "here").pairs == ()
    assert landmarks_of({"names": ["a", "b"]}, "here").sigmas == (0.05, 0.05)
