"""Scores of every task do not see points that are not known: their targets may be NaN and their predictions anywhere."""

from collections.abc import Iterator

import pytest
import torch
from crops import coco_crops
from test_coco_metrics import annotations, write
from torch import Tensor

from sampling_argmax_cuda.tasks.h36m.metrics import PoseEvaluation
from sampling_argmax_cuda.tasks.keypointnet.metrics import KeypointEvaluation
from sampling_argmax_cuda.tasks.keypoints.oks import CocoEvaluation
from sampling_argmax_cuda.tasks.mpii.metrics import GROUPS, PckhEvaluation
from sampling_argmax_cuda.tasks.mtfl.metrics import MtflEvaluation
from sampling_argmax_cuda.tasks.oct.delineation import LAYERS, SURFACES
from sampling_argmax_cuda.tasks.oct.metrics import SurfaceEvaluation
from sampling_argmax_cuda.tasks.skeleton.metrics import AlignmentEvaluation

WILD, FOUND = 1e4, 3  # where a wrong answer is, and how many samples there are
INDEX = torch.arange(FOUND)

_unknown = torch.nan


@pytest.fixture(params=[torch.nan, -7.0], ids=["nan", "number"], autouse=True)
def unknown(request, monkeypatch):
    """What stands where a target is not known."""
    monkeypatch.setattr(f"{__name__}._unknown", request.param)


def places(count: int, axes: int) -> Tensor:
    return torch.rand(FOUND, count, axes, generator=torch.Generator().manual_seed(count)) * 12 + 2


def answer(truth: Tensor, known: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """The prediction, far off where ``wrong``, and the target, without meaning where it is not known."""
    return torch.where(wrong > 0, WILD, truth), torch.where(known > 0, truth, _unknown)


def of_images(evaluation, weight: Tensor, wrong: Tensor, **more: Tensor) -> dict[str, float]:
    """The scores of a task on images whose pixels are 4 times its cells."""
    found, target = answer(places(weight.shape[1], 2), weight[..., None], wrong[..., None])
    batch = {"index": INDEX, "target": target, "weight": weight, **more}
    evaluation.add(batch, found, torch.ones_like(weight), 4 * found, torch.cat([4 * target, weight[..., None]], -1))
    return evaluation.compute(list)


def mtfl(weight: Tensor, wrong: Tensor) -> dict[str, float]:
    return of_images(MtflEvaluation(), weight, wrong)


def mpii(weight: Tensor, wrong: Tensor) -> dict[str, float]:
    joints = torch.cat([4 * answer(places(16, 2), weight[..., None], wrong[..., None])[1], weight[..., None]], -1)
    boxed = torch.tensor([True, False, True])
    return of_images(PckhEvaluation(), weight, wrong, head=torch.full((FOUND,), 9.0), head_boxed=boxed, joints=joints)


def h36m(weight: Tensor, wrong: Tensor, axis: int | None = None) -> dict[str, float]:
    """A pose in mm has all its joints, in the crop or not, and is right here. A mask may be of one coordinate alone."""
    weight, wrong = (x.unsqueeze(-1).expand(-1, -1, 3).clone() for x in (weight, wrong))
    axes = torch.ones_like(weight)
    if axis is not None:
        others = [k for k in range(3) if k != axis]
        weight[..., others], wrong[..., others], axes = 1, 0, weight
    found, target = answer(places(18, 3), weight, wrong)
    behind = places(18, 3).double()
    behind[..., 2] -= behind[:, :1, 2]
    pose = behind + torch.tensor([0, 0, 50.0])
    batch = {"index": INDEX, "action": torch.tensor([0, 1, -1]), "pose": pose, "root_depth": torch.full((FOUND,), 50.0),
             "focal": torch.ones(FOUND, 2), "center": torch.zeros(FOUND, 2), "target": target, "weight": weight.amax(-1),
             "axes": axes}  # fmt: skip
    pixels = torch.cat([pose[..., :2] / pose[..., 2:], behind[..., 2:]], -1)
    evaluation = PoseEvaluation("camera", 1.0)
    evaluation.add(batch, found, batch["weight"], pixels, pixels)
    return evaluation.compute(list)


def oct_(weight: Tensor, wrong: Tensor) -> dict[str, float]:
    """The first column of a B-scan has the masks, the others have none unless all surfaces are masked."""
    truth = torch.arange(9.0)[None, :, None] * 10 + torch.rand(FOUND, 1, 4)
    weight, wrong = (torch.stack([x, *[y.expand_as(x)] * 3], -1)
                     for x, y in ((weight, weight.amax(1, True)), (wrong, wrong.amin(1, True))))  # fmt: skip
    found, target = answer(truth, weight, wrong)
    batch = {"index": INDEX, "volume": torch.tensor([0, 0, 1]), "scan": INDEX, "um_per_row": torch.full((FOUND,), 4.0),
             "columns": torch.full((FOUND,), 4), "offset": torch.zeros(FOUND, 4), "target": target, "weight": weight}  # fmt: skip
    evaluation = SurfaceEvaluation()
    evaluation.add(batch, found)
    return evaluation.compute(list)


def of_point_clouds(evaluation, weight: Tensor, wrong: Tensor) -> dict[str, float]:
    cloud = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(1)).expand(FOUND, -1, -1)
    found, target = answer(cloud[:, : weight.shape[1]], weight[..., None], wrong[..., None])
    copies = target.unsqueeze(1).expand(-1, 2, -1, -1)
    evaluation.add({"index": INDEX, "points": cloud, "copies": copies, "weight": weight}, found)
    return evaluation.compute(list)


def keypointnet(weight: Tensor, wrong: Tensor) -> dict[str, float]:
    return of_point_clouds(KeypointEvaluation(), weight, wrong)


TASKS = {"mtfl": (mtfl, 5), "mpii": (mpii, 16), "h36m": (h36m, 18), "oct": (oct_, 9), "keypointnet": (keypointnet, 6)}
ALL = {
    "mtfl": {"error", "abs_px", "rel_percent"},
    "mpii": {"error", "pck", *(f"{name}{group}" for name in ("pckh", "pck_neck_head")
                               for group in ("", "_0.1", *(f"_{group}" for group in GROUPS)))},
    "h36m": {"error", "mpjpe_mm", "pa_mpjpe_mm", "rigid_mpjpe_mm", "x_mm", "y_mm", "z_mm", "mpjpe_directions_mm",
             "mpjpe_discussion_mm"},
    "oct": {"error", "order_violations", "dice", *(f"{name}_{unit}" for name in ("mad", "signed", "std", "rmse")
                                                   for unit in ("px", "um")),
            *(f"mad_{name}_um" for name in SURFACES), *(f"dice_{name}" for name in LAYERS)},
    "keypointnet": {"error", *(f"{name}_{k / 100:.2f}" for name in ("pck", "pck_euclidean", "miou") for k in range(1, 11))},
}  # fmt: skip
UNMASKED = {"h36m": ALL["h36m"] - {"error"}, "oct": {"order_violations"}}  # what there is where nothing is known


def masks(count: int) -> Iterator[Tensor]:
    """Nothing, each point of one sample, each point of every sample, and every point of one sample."""
    yield torch.ones(FOUND, count)
    for k in range(count):
        for rows in ([1], [0, 1, 2]):
            weight = torch.ones(FOUND, count)
            weight[rows, k] = 0
            yield weight
    yield torch.cat([torch.zeros(1, count), torch.ones(FOUND - 1, count)])


def check_perfect(task: str, weight: Tensor, **more) -> set[str]:
    scores = TASKS[task][0](weight, 1 - weight, **more)
    at_best = {name: float(name.startswith(("pck", "miou", "dice"))) for name in scores}
    assert scores == pytest.approx(at_best, abs=2e-5), weight
    return scores.keys()


@pytest.mark.parametrize("task", TASKS)
def test_a_right_answer_is_perfect_whatever_is_masked(task):
    names = [check_perfect(task, weight) for weight in masks(TASKS[task][1])]
    assert names[0] == ALL[task] and all("error" in own and own <= ALL[task] for own in names)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_coordinate_may_be_unknown_alone(axis):
    for weight in masks(18):
        check_perfect("h36m", weight, axis=axis)


@pytest.mark.parametrize("task", TASKS)
def test_where_nothing_is_known_there_is_no_score(task):
    scores = TASKS[task][0](torch.zeros(FOUND, TASKS[task][1]), torch.ones(FOUND, TASKS[task][1]))
    assert scores.keys() == UNMASKED.get(task, set())


@pytest.mark.parametrize("task", TASKS)
def test_every_known_point_counts(task):
    """A wrong answer for one point of one sample is seen by the score of the best checkpoint, or by the error in cells."""
    scores_of, count = TASKS[task]
    for k in range(17 if task == "h36m" else count):  # Human3.6M scores no thorax
        wrong = torch.zeros(FOUND, count)
        wrong[1, k] = 1
        assert scores_of(torch.ones(FOUND, count), wrong)["error"] > 10, k


@pytest.mark.parametrize(
    "make", [MtflEvaluation, PckhEvaluation, lambda: PoseEvaluation("camera", 1.0), SurfaceEvaluation, KeypointEvaluation,
             AlignmentEvaluation]
)  # fmt: skip
def test_of_nothing_there_is_no_score(make):
    evaluation = make()
    assert evaluation.compute(list) == {} and evaluation.results == []


def test_alignment_is_of_the_models_that_are_annotated():
    """Targets of masked annotations are never read, and a model without any has no part in the scores."""
    weight, wrong = torch.ones(FOUND, 5), torch.zeros(FOUND, 5)
    whole = of_point_clouds(AlignmentEvaluation(), weight, wrong)
    assert whole["das"] == 1 and whole["error"] == 0 and whole["miou_euclidean_0.01"] == 1
    weight[0] = 0
    assert of_point_clouds(AlignmentEvaluation(), weight, 1 - weight) == whole
    weight[1] = 0
    assert of_point_clouds(AlignmentEvaluation(), weight, 1 - weight) == {}
    weight = torch.ones(FOUND, 5)
    weight[:, 2] = 0  # its keypoint takes the name of the same neighbour in every model
    assert of_point_clouds(AlignmentEvaluation(), weight, wrong)["das_forward"] == 1
    weight = torch.eye(FOUND, 5)  # no annotation in common
    assert not {"das", "das_backward"} & of_point_clouds(AlignmentEvaluation(), weight, wrong).keys()


@pytest.mark.parametrize("labelled", [False, True], ids=["unlabelled", "outside"])
def test_coco_scores_do_not_see_what_is_masked(labelled, tmp_path):
    """A joint without a label is in no score. One that lies outside its crop is trained on nothing, and AP counts it."""
    for k in range(17):
        content = annotations()
        points = torch.tensor([person["keypoints"] for person in content["annotations"]]).view(-1, 17, 3)
        points[..., 2] = 2
        weight = torch.ones(len(points), 17)
        weight[::2, k] = 0
        if not labelled:
            points[..., 2] *= weight
        for person, own in zip(content["annotations"], points, strict=True):
            person |= {"keypoints": own.flatten().tolist(), "num_keypoints": int((own[:, 2] > 0).sum())}
        data = coco_crops(tmp_path, write(tmp_path, content), tmp_path)
        found, target = answer(points[..., :2].float() / 4, weight[..., None], 1 - weight[..., None])
        pixels = points[..., :2].float() if labelled else 4 * found
        batch = {"index": torch.arange(len(points)), "target": target, "weight": weight}
        evaluation = CocoEvaluation()
        evaluation.add(batch, found, torch.ones_like(weight), pixels, torch.cat([4 * target, weight[..., None]], -1))
        scores = evaluation.compute(list, data)
        assert scores["AP"] == pytest.approx(1) and scores["error"] == scores["bias"] == 0
