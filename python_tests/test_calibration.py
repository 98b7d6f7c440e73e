"""Calibration: laws against integrals and draws, what is fitted against planted truths, and the command."""

import json
import math
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from runs import last, small
from scipy import stats

from sampling_argmax_cuda import load
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.calibration import fit
from sampling_argmax_cuda.calibration.calibration import Calibration, Radius
from sampling_argmax_cuda.calibration.laws import (
    central_region,
    in_plane,
    law_scores,
    quantile,
    tempered,
)
from sampling_argmax_cuda.calibration.report import as_json
from sampling_argmax_cuda.calibration.scores import Points, scores_of
from sampling_argmax_cuda.objectives import SoftArgmax, SoftRle
from sampling_argmax_cuda.objectives.answers import OutputWithSigma
from sampling_argmax_cuda.objectives.heatmap import Heatmap
from sampling_argmax_cuda.objectives.spread import plane_covariance
from sampling_argmax_cuda.trainers import calibrating
from sampling_argmax_cuda.trainers.certainty import certainty, covariance_of, crop_side, spread_in_radii
from sampling_argmax_cuda.trainers.tta import EnsembleMember, TestTimeAugmentation


def law_of(*shape: int, seed: int = 0, width: float = 2.0) -> torch.Tensor:
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * width
    return z.flatten(2).softmax(-1).view(shape)


def draws_of(law: torch.Tensor, count: int, seed: int = 0) -> torch.Tensor:
    """Places ``[n, 2]`` (x, y) drawn from a law ``[H, W]``, evenly within their cells."""
    generator = torch.Generator().manual_seed(seed)
    cell = torch.multinomial(law.flatten(), count, replacement=True, generator=generator)
    y, x = torch.unravel_index(cell, law.shape)
    return torch.stack([x, y], -1) + torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.5


# ---- laws ----


def test_a_temperature_divides_the_logits():
    z = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for t in (0.3, 1.0, 4.0):
        expected = (z / t).flatten(2).softmax(-1).view_as(z)
        assert torch.allclose(tempered(z.flatten(2).softmax(-1).view_as(z), t), expected)
    peak = torch.tensor([[[[0.0, 1.0]]]])
    assert torch.equal(tempered(peak, 2.0), peak)


def test_quantiles_invert_the_share_below():
    law, target = law_of(3, 4, 5, 7), torch.rand(3, 4, 2, dtype=torch.float64) * 4
    below = law_scores(law, target).below
    for axis, marginal in enumerate((law.sum(2), law.sum(3))):
        for b in range(3):
            for k in range(4):
                found = quantile(marginal[b, k], below[b, k, axis].item())
                assert found.item() == pytest.approx(target[b, k, axis].item(), abs=1e-9)
    assert quantile(torch.tensor([0.0, 1.0, 0.0]), 0.25).item() == 0.75


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_central_regions_hold_their_share_on_each_axis(level):
    law = law_of(1, 1, 6, 9)
    low, high = central_region(law, level)[0, 0]
    y = draws_of(law[0, 0], 100_000)
    for side in ((y < low), (y > high)):
        assert side.double().mean(0).tolist() == pytest.approx([(1 - level) / 2] * 2, abs=0.005)


def test_the_score_is_its_integral():
    """``integral (F(x) - [t <= x])^2 dx`` by a sum over small steps."""
    law, target = law_of(1, 1, 4, 6), torch.tensor([[[1.3, 2.45]]], dtype=torch.float64)
    x, expected = torch.arange(-2, 9, 1e-4, dtype=torch.float64) + 5e-5, 0.0
    for marginal, t in zip((law.sum(2), law.sum(3)), target[0, 0], strict=True):
        borders = torch.arange(marginal.shape[-1] + 1).double() - 0.5
        below = torch.cat([torch.zeros(1), marginal[0, 0].cumsum(0)]).double()
        share = torch.from_numpy(np.interp(x, borders, below))
        expected += ((share - (x >= t).double()).square().sum() * 1e-4).item()
    scores = law_scores(law, target)
    assert scores.crps.item() == pytest.approx(expected, abs=1e-4)
    assert scores.nll.item() == pytest.approx(-math.log(law[0, 0, 2, 1]))


def test_laws_of_objectives():
    z = torch.randn(2, 3, 4, 5)
    assert torch.allclose(SoftArgmax(beta=2.0).law(z), (2 * z.double()).flatten(2).softmax(-1).view_as(z))
    assert torch.allclose(
        SoftRle().law(OutputWithSigma(z, z[..., 0, :2])), z.double().flatten(2).softmax(-1).view_as(z)
    )
    values = z.double().clamp(min=0)
    assert torch.allclose(Heatmap().law(z), values / values.sum((2, 3), keepdim=True))
    assert torch.allclose(in_plane(law_of(1, 2, 3, 4, 5)), law_of(1, 2, 3, 4, 5).sum(2))


@pytest.mark.parametrize("average", ["coords", "maps"])
def test_the_law_is_the_mean_of_the_passes(average):
    """A network that answers the left half: the mean law has both halves, whatever positions are averaged of."""

    def network(images):
        z = torch.full((len(images), 2, images.shape[2] // 4, images.shape[3] // 4), -50.0)
        z[:, 0, 3, 2], z[:, 1, 5, 6] = 50, 50
        return z

    members, images = [EnsembleMember(network, SoftArgmax())], torch.rand(1, 3, 64, 64)
    tta = TestTimeAugmentation([1, 0], True, (1.0,), average)
    law = tta.read(members, images, law=True).law
    assert tta.read(members, images).law is None
    assert law.sum((2, 3)).flatten().tolist() == pytest.approx([1, 1])
    # Point 1 of the mirrored image is point 0, and cell j lies at 16 - 1/4 - j there.
    assert law[0, 0, 3, 2].item() == pytest.approx(0.5) and law[0, 0, 5, 9:11].tolist() == pytest.approx([0.125, 0.375])


@pytest.mark.parametrize("stride", [4, 8])
def test_pixels_of_a_turned_crop(stride):
    """Covariance and boxes against cells that are drawn and taken to the image one by one."""
    law, angle = law_of(1, 1, 8, 8), 0.4
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.concatenate([turn * 1.7, [[30.0], [40.0]]], 1)[None].astype(np.float32)
    images, affine = torch.zeros(1, 3, 8 * stride, 8 * stride), torch.from_numpy(inverse)
    pixels = stride * draws_of(law[0, 0], 200_000).round().numpy() @ inverse[0, :, :2].T + inverse[0, :, 2]
    assert np.allclose(covariance_of(law, images, affine)[0, 0], np.cov(pixels.T), rtol=0.03)
    found = certainty(law, images, affine, None, (0.9,))
    assert set(found) == {"regions"} and found["regions"].shape == (1, 1, 1, 4)
    corners = stride * central_region(law, 0.9)[0, 0].numpy() @ inverse[0, :, :2].T + inverse[0, :, 2]
    assert found["regions"][0, 0, 0].tolist() == pytest.approx([*corners.min(0), *corners.max(0)], rel=1e-5)
    assert crop_side(images, affine).item() == pytest.approx(1.7 * 8 * stride)
    assert Radius.of("5%").pixels(crop_side(images, affine)).item() == pytest.approx(0.05 * 1.7 * 8 * stride)


def test_confidence_is_that_of_the_tempered_spread():
    law, images, affine = law_of(2, 3, 8, 8), torch.zeros(2, 3, 32, 32), torch.eye(2, 3).expand(2, 2, 3)
    calibration = Calibration(Radius(4.0, "px"), 0.5, (1.0, 3.0), (0.9, 0.1))
    found = certainty(law, images, affine, calibration, ())
    assert torch.allclose(found["covariance"], 16 * plane_covariance(tempered(law, 0.5)))
    spread = found["covariance"].diagonal(dim1=-2, dim2=-1).sum(-1).sqrt() / 4
    assert torch.allclose(found["confidence"], (0.9 - 0.4 * (spread - 1)).clamp(0.1, 0.9))
    assert found["radius"].tolist() == [4, 4]


# ---- what is fitted ----


def scores_at_temperatures(law: torch.Tensor, target: torch.Tensor) -> np.ndarray:
    return torch.stack([law_scores(tempered(law, t), target).crps for t in fit.TEMPERATURES], -1).flatten(0, 1).numpy()


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.9])
def test_the_temperature_of_planted_targets(truth):
    """Targets are drawn from the laws at another temperature."""
    law = law_of(1, 4000, 7, 6, width=1.5)
    planted = tempered(law, truth)
    target = torch.stack([draws_of(planted[0, k], 1, seed=k)[0] for k in range(4000)])[None]
    assert fit.fit_temperature(scores_at_temperatures(law, target)) == pytest.approx(truth, rel=0.1)


def test_the_least_temperature_of_a_parabola():
    steps = np.log(fit.TEMPERATURES)
    for least in (-1.3, 0.0, 2.1):
        assert math.log(fit.fit_temperature((steps - least)[None] ** 2)) == pytest.approx(least)
    assert fit.fit_temperature(steps[None]) == fit.TEMPERATURES[0]
    assert fit.fit_temperature(-steps[None]) == fit.TEMPERATURES[-1]
    assert fit.fit_temperature(np.zeros((1, len(steps)))) == fit.TEMPERATURES[0]


def test_probabilities_of_few_points():
    """All within: (n + 1) / (n + 2), and none: 1 / (n + 2); a single good one at the end joins its neighbours."""
    place, share = fit.fit_probability(np.arange(8.0), np.ones(8, bool))
    assert place == (3.5,) and share == pytest.approx((0.9,))
    place, share = fit.fit_probability(np.arange(8.0), np.zeros(8, bool))
    assert share == pytest.approx((0.1,))
    place, share = fit.fit_probability(np.array([3.0, 1.0, 2.0, 4.0]), np.array([False, True, True, False]))
    assert place == (1.5, 3.5) and share == pytest.approx((0.75, 0.25))
    place, share = fit.fit_probability(np.arange(21.0), np.array([True, False, *[True] * 18, False]))
    assert all(a > b for a, b in zip(share, share[1:], strict=False)) and max(share) < 19 / 21


def test_probabilities_are_true_on_other_points():
    """Errors of planted widths: whatever confidence is claimed, that share is within the radius."""
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(0, 0.7, (2, 20_000)))
    error = spread * np.sqrt(rng.chisquare(2, spread.shape) / 2)
    calibration = Calibration(Radius(1.0, "px"), 1.0, *fit.fit_probability(spread[0], error[0] <= 1))
    found = calibration.confidence(torch.from_numpy(spread[1])).numpy()
    exact = 1 - np.exp(-1 / spread[1] ** 2)
    assert np.abs(found - exact).mean() < 0.02 and ((0 < found) & (found < 1)).all()
    for low in np.arange(0.1, 0.95, 0.1):
        chosen = (found >= low) & (found < low + 0.1)
        assert (error[1] <= 1)[chosen].mean() == pytest.approx(found[chosen].mean(), abs=0.05)
    high = found >= 0.9
    assert high.mean() > 0.05 and (error[1] <= 1)[high].mean() == pytest.approx(found[high].mean(), abs=0.02)


def test_halves_share_no_image():
    groups = np.array([0, 1, 1, 2, 3, 3, 3, 4])
    chosen = fit.halves(groups, 0)
    assert len(set(groups[chosen])) == 2 and not set(groups[chosen]) & set(groups[~chosen])
    assert np.array_equal(chosen, fit.halves(groups, 0))
    assert any(not np.array_equal(chosen, fit.halves(groups, seed)) for seed in range(1, 6))


def test_a_calibration_is_plain_numbers():
    calibration = Calibration(Radius(5.0, "%"), 1.5, (0.5, 1.0), (0.9, 0.2), {"decoder": None, "scales": [1.0]})
    state = json.loads(json.dumps(calibration.state()))
    assert Calibration.of(state) == calibration and Calibration.of(None) is None
    assert calibration.confidence(torch.tensor([0.0, 0.75, 9.0])).tolist() == pytest.approx([0.9, 0.55, 0.2])


@pytest.mark.parametrize("places", [[0.5], [0.5, 1.0], [0.0, 0.1, 0.1, 0.4, 2.0]])
def test_a_confidence_is_linear_between_its_spreads(places):
    """As NumPy has it; where two spreads are one, it falls there at once. What nobody knows stays unknown."""
    shares = np.linspace(0.9, 0.1, len(places))
    calibration = Calibration(Radius(1.0, "px"), 1.0, tuple(places), tuple(shares))
    spread = np.concatenate([np.linspace(0, 3, 301), [np.nan]])
    kept = ~np.isin(spread, [0.1])
    found = calibration.confidence(torch.from_numpy(spread))
    assert found.dtype == torch.float64
    assert (
        np.allclose(found.numpy()[kept], np.interp(spread, places, shares)[kept], atol=1e-12, equal_nan=True)
        or len(places) == 1
    )
    assert len(places) > 1 or (found[:-1] == 0.9).all()


@pytest.mark.parametrize("text, value, unit", [("4", 4, "px"), ("2.5px", 2.5, "px"), ("5%", 5, "%")])
def test_radii(text, value, unit):
    assert Radius.of(text) == Radius(value, unit)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "five", "%", "5cm"])
def test_wrong_radii(text):
    with pytest.raises(ValueError, match="calibrate: radius must be pixels of the image > 0"):
        Radius.of(text)


# ---- the numbers of the report ----


def some_points(count: int = 500) -> Points:
    rng = np.random.default_rng(1)
    confidence, error = rng.random(count), rng.exponential(2, count)
    return Points(rng.integers(0, 3, count), error, rng.random(count) < confidence, confidence, rng.random(count),
                  rng.random(count), rng.random((count, 2)))  # fmt: skip


def test_the_numbers_of_the_report():
    points = some_points()
    found = scores_of(points)
    assert found["pearson"] == pytest.approx(stats.pearsonr(points.confidence, points.error).statistic)
    assert found["spearman"] == pytest.approx(stats.spearmanr(points.confidence, points.error).statistic)
    assert found["brier"] == pytest.approx(np.mean((points.confidence - points.within) ** 2))
    order = np.argsort(points.confidence).reshape(10, 50)
    off = np.abs(points.confidence[order].mean(1) - points.within[order].mean(1))
    assert found["ece"] == pytest.approx(off.mean()) and found["ece"] < 0.1
    assert [g["within"] for g in found["reliability"]] == pytest.approx(list(points.within[order].mean(1)))
    inside = (points.below > 0.05) & (points.below < 0.95)
    assert found["coverage"]["0.9"] == pytest.approx(inside.mean())
    assert sum(found["pit"]) == pytest.approx(1) and found["pit"][3] == pytest.approx(
        ((points.below >= 0.3) & (points.below < 0.4)).mean()
    )
    kept = np.argsort(-points.confidence)[:150]
    assert found["risk_coverage"][2] == {"share": pytest.approx(0.3), "error": pytest.approx(points.error[kept].mean())}
    assert found["risk_coverage"][9]["error"] == pytest.approx(points.error.mean())
    high = points.confidence >= 0.9
    assert found["high"] == {"count": high.sum(), "confidence": pytest.approx(points.confidence[high].mean()),
                             "within": pytest.approx(points.within[high].mean())}  # fmt: skip
    assert scores_of(points.of(points.confidence < 0.5))["high"] == {"count": 0}
    assert as_json({"a": [math.inf, 1.0], "b": (math.nan,)}) == {"a": [None, 1.0], "b": [None]}


# ---- the command ----

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write
SIZES = {"mtfl": ["--data.synthetic_val=28"], "coco": ["--data.synthetic_val=12"], "h36m": ["--data.synthetic_val=12"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def faces(data, tmp_path_factory) -> Path:
    """A run of mtfl, with its checkpoint calibrated."""
    run = tmp_path_factory.mktemp("faces")
    more = (*SIZES["mtfl"], "--trainer.max_epochs=1", "--model.flip_test=true")
    assert main(["fit", *small("mtfl", data, run, *more)]) == 0
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    argv = [*SIZES["mtfl"], "--ckpt_path=last", "--radius=30", "--model.decoder=local"]
    assert main(["calibrate", *evaluated("mtfl", data, run, *argv)]) == 0
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    return run


def evaluated(task: str, data: Path, run: Path, *more: str) -> list[str]:
    """The options of data and trainer of a small run: the checkpoint has the others."""
    options = small(task, data, run, *more)
    return [
        "--config",
        task,
        *(item for item in options[2:] if item.startswith(("--data", "--trainer")) or item in more),
    ]


def predictions(run: Path, inputs: Path, checkpoint: Path, *more: str) -> list[dict]:
    argv = [f"--ckpt_path={checkpoint}", f"--data.images={inputs}", f"--trainer.default_root_dir={run}", "--trainer.logger=false",
            "--trainer.accelerator=cpu", "--data.num_workers=0", "--trainer.enable_progress_bar=false", *more]  # fmt: skip
    assert main(["predict", *argv]) == 0
    return json.loads((run / "predictions.json").read_text())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for i in range(2):
        cv2.imwrite(str(folder / f"{i}.png"), np.random.default_rng(i).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    return folder


def test_files_of_a_calibration(faces):
    report = json.loads((faces / "calibration.json").read_text())
    assert report["fitted_on"] + report["reported_on"] == 28 * 5 and report["fitted_on"] == 14 * 5
    assert set(report["points"]) == {"left_eye", "right_eye", "nose", "mouth_left", "mouth_right"}
    page = (faces / "calibration.md").read_text()
    for part in (
        "Radius 30 px",
        "| CRPS of the marginals, cells |",
        "| in the central 95 % of an axis |",
        "| mouth_left | 14 |",
    ):
        assert part in page
    assert cv2.imread(str(faces / "calibration.png")).shape[2] == 3
    saved = torch.load(faces / "checkpoints" / "last-calibrated.ckpt", weights_only=True)
    calibration = Calibration.of(saved["calibration"])
    assert calibration.radius == Radius(30.0, "px") and calibration.temperature == report["temperature"]
    assert list(calibration.spread) == report["map"]["spread"]
    assert saved["hyper_parameters"]["decoder"] == "local" and last(faces)["hyper_parameters"]["decoder"] is None
    assert not list(faces.rglob("results.json")) and not list(faces.rglob(".*ckpt*"))


def test_predictions_with_and_without(faces, inputs, tmp_path, capfd):
    plain = predictions(tmp_path / "a", inputs, faces / "checkpoints" / "last.ckpt", "--model.decoder=local")
    sure = predictions(
        tmp_path / "b", inputs, faces / "checkpoints" / "last-calibrated.ckpt", "--model.regions=[0.5,0.9]"
    )
    assert "confidences may be off" not in capfd.readouterr().out
    saved = torch.load(faces / "checkpoints" / "last-calibrated.ckpt", weights_only=True)
    calibration = Calibration.of(saved["calibration"])
    for without, found in zip(plain, sure, strict=True):
        keypoints, same = (np.array(record["keypoints"]).reshape(5, 3) for record in (found, without))
        assert np.allclose(keypoints[:, :2], same[:, :2]), "a temperature moves no position"
        covariance = np.array(found["covariance"])
        spread = np.sqrt(np.trace(covariance, axis1=1, axis2=2)) / found["radius_px"]
        assert found["radius_px"] == 30 and np.allclose(
            found["confidence"], calibration.confidence(torch.from_numpy(spread))
        )
        assert np.allclose(keypoints[:, 2], found["confidence"], atol=1e-6)
        assert found["score"] == pytest.approx(np.mean(found["confidence"]))
        assert (
            np.array(without["covariance"]).shape == (5, 2, 2)
            and "confidence" not in without
            and "radius_px" not in without
        )
        inner, outer = (np.array(found["regions"][level]) for level in ("0.5", "0.9"))
        assert (outer[:, :2] < inner[:, :2]).all() and (inner[:, 2:] < outer[:, 2:]).all() and "regions" not in without
    positions, confidence, covariance = load(faces / "checkpoints" / "last-calibrated.ckpt", device="cpu")(
        [cv2.imread(str(inputs / f"{i}.png"))[..., ::-1] for i in range(2)]
    )
    for i, record in enumerate(sure):
        assert np.allclose(positions[i], np.array(record["keypoints"]).reshape(5, 3)[:, :2], atol=1e-3)
        assert np.allclose(confidence[i], record["confidence"], atol=1e-4)
        assert np.allclose(covariance[i], record["covariance"], rtol=1e-3)
    predictions(tmp_path / "c", inputs, faces / "checkpoints" / "last-calibrated.ckpt", "--model.flip_test=false")
    assert "calibrated with --model.flip_test True, not False: confidences may be off" in capfd.readouterr().out


def test_a_calibration_is_of_its_weights(faces, data, tmp_path):
    """A run that goes on from a calibrated checkpoint writes checkpoints without one."""
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(faces / "checkpoints" / "last-calibrated.ckpt", tmp_path / "checkpoints" / "last.ckpt")
    more = (
        *SIZES["mtfl"],
        "--ckpt_path=last",
        "--trainer.max_epochs=2",
        "--trainer.limit_val_batches=0",
        "--model.flip_test=true",
    )
    assert main(["fit", *small("mtfl", data, tmp_path, *more)]) == 0
    assert "calibration" not in last(tmp_path) and last(tmp_path)["global_step"] > last(faces)["global_step"]


@pytest.mark.parametrize("task, objective", [("coco", "heatmap"), ("h36m", "soft")])
def test_other_tasks(task, objective, data, inputs, tmp_path, capfd, monkeypatch):
    """People of one image are in one half, and points in space are calibrated in the image's plane."""
    seen, real = [], calibrating.halves
    monkeypatch.setattr(calibrating, "halves", lambda groups, seed: seen.append(groups) or real(groups, seed))
    assert main(["fit", *small(task, data, tmp_path, *SIZES[task], f"--objective={objective}", "--trainer.max_steps=1",
                               "--trainer.limit_val_batches=0")]) == 0  # fmt: skip
    assert main(["calibrate", *evaluated(task, data, tmp_path, *SIZES[task], "--ckpt_path=last")]) == 0
    assert "Radius 5 % of the crop" in capfd.readouterr().out
    if task == "coco":
        truth = json.loads((data / task / "annotations" / "person_keypoints_val2017.json").read_text())
        images = {person["image_id"] for person in truth["annotations"] if person["num_keypoints"]}
        assert len(set(seen[0])) == len(images) < len(truth["annotations"])
    checkpoint = tmp_path / "checkpoints" / "last-calibrated.ckpt"
    for record in predictions(tmp_path, inputs, checkpoint):
        assert np.array(record["covariance"]).shape[1:] == (2, 2) and all(0 < p < 1 for p in record["confidence"])
        assert record["radius_px"] == pytest.approx(0.05 * 120, rel=0.4)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--task=oct"], "calibrate: needs points on images (tasks coco, h36m, keypoints, mpii, mtfl), got task oct"),
        (
            ["--task=associative"],
            "calibrate: needs points on images (tasks coco, h36m, keypoints, mpii, mtfl), got task associative",
        ),
        (["--task=mtfl"], "calibrate: --ckpt_path must name the checkpoint to calibrate"),
        (["--task=mtfl", "--ckpt_path=best"], "checkpoints/best.ckpt does not exist"),
    ],
)
def test_what_cannot_be_calibrated(more, message, tmp_path, capfd):
    assert main(["calibrate", f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu", *more]) == 1
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--radius=0"], "calibrate: radius must be pixels of the image > 0"),
        (["--split_seed=-1"], "calibrate: split_seed must be >= 0, got -1"),
        (
            ["--data.synthetic_val=8"],
            "calibrate: each half of the validation images needs 50 points that are known, got 20 to fit on",
        ),
    ],
)
def test_wrong_options(more, message, faces, data, tmp_path, capfd):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(faces / "checkpoints" / "last.ckpt", tmp_path / "checkpoints" / "last.ckpt")
    sizes = [f"--data.root={tmp_path / 'data'}", *more] if more[0].startswith("--data") else [*SIZES["mtfl"], *more]
    assert main(["calibrate", *evaluated("mtfl", data, tmp_path, "--ckpt_path=last", *sizes)]) == 1
    assert message in capfd.readouterr().err
    assert not list(tmp_path.rglob("*calibrat*"))


def test_an_objective_without_maps(data, tmp_path, capfd):
    assert main(["fit", *small("mtfl", data, tmp_path, "--objective=direct", *SIZES["mtfl"], "--trainer.max_steps=1",
                               "--trainer.limit_val_batches=0")]) == 0  # fmt: skip
    assert main(["calibrate", *evaluated("mtfl", data, tmp_path, *SIZES["mtfl"], "--ckpt_path=last")]) == 1
    assert "calibrate: needs an objective with maps, got direct" in capfd.readouterr().err
    assert main(["fit", *small("mtfl", data, tmp_path, "--objective=direct", "--model.regions=[0.9]")]) == 1
    assert "model: regions need an objective with maps, got direct" in capfd.readouterr().err


def test_spread_in_radii():
    covariance = torch.tensor([[[[9.0, 1.0], [1.0, 16.0]]]])
    assert spread_in_radii(covariance, torch.tensor([2.0])).item() == 2.5
