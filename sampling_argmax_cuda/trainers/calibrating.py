"""A calibration of a checkpoint: two passes over the validation data, what is fitted, the checkpoint and the report."""

import io
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from ..calibration.calibration import Calibration, Radius
from ..calibration.fit import TEMPERATURES, fit_probability, fit_temperature, halves
from ..calibration.laws import in_plane, law_scores, tempered
from ..calibration.report import as_json, figure_of, markdown, report_of
from ..calibration.scores import Points
from .callbacks import output_folder
from .certainty import covariance_of, crop_side, spread_in_radii
from .figures import save_figure
from .files import write_atomically, write_json
from .landmark_module import LandmarkModule
from .trained_module import gather_objects
from .weights import read_tensors

LEAST = 50  # known points that each half needs
Columns = dict[str, np.ndarray]


def scores_by_temperature(found: dict[str, Tensor], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """``crps`` ``[B, K, temperatures]`` of x and y, in cells."""
    target = batch["target"][..., :2].double()
    scores = [law_scores(in_plane(tempered(found["law"], t)), target).crps for t in TEMPERATURES]
    return {"crps": torch.stack(scores, -1)}


def statistics(found: dict[str, Tensor], batch: dict[str, Tensor], temperatures: dict[str, float], radius: Radius
               ) -> dict[str, Tensor]:  # fmt: skip
    """Peak, error and radius ``[B, K]`` and, at each temperature, spread, CRPS, log-likelihood and PIT values, by name."""
    reach = radius.pixels(crop_side(batch["image"], batch["inverse"]))
    error = (found["pixels"][..., :2] - found["truth"][..., :2]).norm(dim=-1)
    out = {"peak": found["peak"], "error": error, "radius": reach.unsqueeze(-1).expand_as(error)}
    target = batch["target"][..., :2].double()
    for name, temperature in temperatures.items():
        law = in_plane(tempered(found["law"], temperature))
        spread = spread_in_radii(covariance_of(law, batch["image"], batch["inverse"]), reach)
        own = {"spread": spread, **law_scores(law, target)._asdict()}
        out |= {f"{name}_{key}": value for key, value in own.items()}
    return out


class Collector(Callback):
    """Columns of every point of the validation data whose place is known: what is measured, its sample and its number."""

    def __init__(self, measure: Callable[..., dict[str, Tensor]]) -> None:
        self.measure, self.parts = measure, []

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        known = batch["weight"] > 0
        index, point = torch.meshgrid(batch["index"], torch.arange(known.shape[1], device=known.device), indexing="ij")
        columns = {**self.measure(outputs, batch), "index": index, "point": point}
        self.parts.append({name: value[known].double().cpu().numpy() for name, value in columns.items()})

    def columns(self) -> Columns:
        """Of all ranks, in the order of the samples."""
        parts = gather_objects(self.parts)
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.lexsort((columns["point"], columns["index"]))
        return {name: value[order] for name, value in columns.items()}


def measured(trainer: lightning.Trainer, model: LandmarkModule, data: lightning.LightningDataModule,
             measure: Callable[..., dict[str, Tensor]], checkpoint: Path | None) -> Columns:  # fmt: skip
    """What is measured of all known points of the validation data."""
    collector = Collector(measure)
    trainer.callbacks.append(collector)
    trainer.validate(model, datamodule=data, ckpt_path=checkpoint, verbose=False)
    trainer.callbacks.remove(collector)
    return collector.columns()


def _halves(columns: Columns, data: lightning.LightningDataModule, seed: int) -> np.ndarray:
    """Which known points are fitted on."""
    samples = np.unique(columns["index"].astype(int), return_inverse=True)
    names = {}
    images = np.array([names.setdefault(data.val_data.image_of(int(i)), len(names)) for i in samples[0]], int)
    chosen = halves(images[samples[1]], seed)
    if min(chosen.sum(), (~chosen).sum()) < LEAST:
        raise ValueError(f"calibrate: each half of the validation images needs {LEAST} points that are known, got "
                         f"{chosen.sum()} to fit on and {(~chosen).sum()} to report on")  # fmt: skip
    return chosen


def _points(columns: Columns, name: str, confidence: np.ndarray) -> Points:
    within = columns["error"] <= columns["radius"]
    return Points(columns["point"].astype(int), columns["error"], within, confidence, columns[f"{name}_crps"],
                  columns[f"{name}_nll"], columns[f"{name}_below"])  # fmt: skip


def write_calibrated(checkpoint: Path, calibration: Calibration) -> Path:
    """The checkpoint with a calibration, and read as it was calibrated, in a file beside it; the original stays as it is."""
    content = read_tensors(checkpoint, "--ckpt_path:")
    content["calibration"] = calibration.state()
    content["hyper_parameters"] = {**content["hyper_parameters"], **calibration.reading}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path = checkpoint.with_name(f"{checkpoint.stem.removesuffix('-calibrated')}-calibrated.ckpt")
    write_atomically(path, buffer.getvalue())
    return path


def calibrate(trainer: lightning.Trainer, model: LandmarkModule, data: lightning.LightningDataModule, checkpoint: Path,
              radius: Radius, seed: int) -> None:  # fmt: skip
    """Fit a temperature and a confidence on half of the validation images, and report on the other half."""
    if model.objective.regresses:
        raise ValueError(f"calibrate: needs an objective with maps, got {model.hparams.objective['name']}")
    if model.hparams.sub_distributions is not None:
        raise ValueError("calibrate: learned sub-distributions are no law of cells, whose temperature could be fitted")
    if seed < 0:
        raise ValueError(f"calibrate: split_seed must be >= 0, got {seed}")
    model.validates_laws = True
    first = measured(trainer, model, data, scores_by_temperature, checkpoint)
    fitted = _halves(first, data, seed)
    temperatures = {"before": 1.0, "after": fit_temperature(first["crps"][fitted])}
    columns = measured(trainer, model, data, lambda *found: statistics(*found, temperatures, radius), None)
    within = columns["error"] <= columns["radius"]
    spread, probability = fit_probability(columns["after_spread"][fitted], within[fitted])
    calibration = Calibration(radius, temperatures["after"], spread, probability, model.reading())
    held = {name: value[~fitted] for name, value in columns.items()}
    before = _points(held, "before", held["peak"])
    parts = torch.from_numpy(held["after_spread"]).split(2**16)  # of all at once there is a number a point and block
    after = _points(held, "after", torch.cat([calibration.confidence(part) for part in parts]).numpy())
    folder = output_folder(trainer)
    if trainer.is_global_zero:
        report = report_of(calibration, before, after, int(fitted.sum()), model.landmarks.names)
        path = write_calibrated(checkpoint, calibration)
        page = markdown(report, checkpoint.name)
        write_json(folder / "calibration.json", as_json(report))
        save_figure(figure_of(report, before, after), folder / "calibration.png")
        write_atomically(folder / "calibration.md", page.encode())
        print(f"{page}\nwrote {path} and {folder / 'calibration.md'}")
