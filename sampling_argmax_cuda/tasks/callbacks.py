"""Pictures and files that a run leaves behind, each written to a temporary name and then renamed."""

import json
import os
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter, Callback
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from ..ops import sample

_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    import io

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def picture(image: Tensor) -> np.ndarray:
    """A normalised ``[3, H, W]`` input as an RGB picture in [0, 1]."""
    return np.clip(image.float().cpu().numpy().transpose(1, 2, 0) * _STD + _MEAN, 0, 1)


def draw_skeleton(axes, points: np.ndarray, visible: np.ndarray, bones, color: str, label: str | None = None) -> None:
    """Points ``[K, 2]`` in pixels, and the bones between visible ones."""
    for a, b in bones:
        if visible[a] and visible[b]:
            axes.plot(*points[[a, b]].T, "-", color=color, lw=1.2, alpha=0.8)
    axes.plot(*points[visible].T, "o", color=color, ms=2.5, label=label)


def overlay_figure(
    preview: dict[str, Tensor], bones, rows: int = 4, joints: int = 3, samples: int = 30, tau: float = 0.5
) -> Figure:
    """Each row: prediction and target on the image, then maps of a few joints with samples and their target."""
    image, logits = preview["image"], preview["logits"]
    rows = min(rows, len(image))
    figure = Figure(figsize=(3 * (joints + 1), 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, joints + 1, squeeze=False)
    stride = image.shape[-1] / logits.shape[-1]
    draws = sample(logits[:rows].float(), num_samples=samples, tau=tau, seed=0).cpu().numpy() * stride
    maps = torch.softmax(logits[:rows].float().flatten(2), -1).view_as(logits[:rows]).cpu().numpy()
    position, target = (preview[k][:rows].float().cpu().numpy() * stride for k in ("position", "target"))
    visible = preview["weight"][:rows].cpu().numpy() > 0
    for i in range(rows):
        shown = picture(image[i])
        grid[i, 0].imshow(shown)
        draw_skeleton(grid[i, 0], target[i], visible[i], bones, "lime", "target")
        draw_skeleton(grid[i, 0], position[i], visible[i], bones, "red", "prediction")
        for axes, joint in zip(
            grid[i, 1:], np.flatnonzero(visible[i])[:: max(1, visible[i].sum() // joints)], strict=False
        ):
            height, width = shown.shape[:2]
            axes.imshow(shown, alpha=0.5)
            axes.imshow(maps[i, joint], extent=(0, width, height, 0), cmap="magma", alpha=0.7)
            axes.plot(*draws[i, joint].T, ".", color="cyan", ms=3, label="samples")
            axes.plot(*target[i, joint], "+", color="lime", ms=10, mew=2, label="target")
            axes.set_title(f"joint {joint}", fontsize=8)
    for axes in grid.flat:
        axes.set_axis_off()
    grid[0, 0].legend(fontsize=7, loc="lower left")
    grid[0, 1].legend(fontsize=7, loc="lower left")
    return figure


class OverlayPictures(Callback):
    """After every validation: image, heatmaps, samples and targets, as pictures/epoch_NNNN.png in the log folder."""

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        folder = trainer.log_dir
        if not trainer.is_global_zero or trainer.sanity_checking or folder is None or not module.preview:
            return
        figure = overlay_figure(module.preview, module.landmarks.bones, tau=module.sampler.tau)
        save_figure(figure, Path(folder) / "pictures" / f"epoch_{trainer.current_epoch:04d}.png")


class PredictionFiles(BasePredictionWriter):
    """predict writes predictions.json (file name, x, y and score of each point, the task's fields) and overlays."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(self, trainer, module, predictions, batch_indices) -> None:
        import cv2

        folder, records = Path(trainer.log_dir or trainer.default_root_dir), []
        for batch in predictions:
            for name, keypoints in zip(batch["file_name"], batch["keypoints"].float().cpu().numpy(), strict=True):
                record = {"file_name": str(name), "keypoints": keypoints.reshape(-1).tolist()}
                records.append({**record, **module.result_fields, "score": float(keypoints[:, 2].mean())})
                image = cv2.cvtColor(cv2.imread(str(name)), cv2.COLOR_BGR2RGB)
                figure = Figure(figsize=(6, 6 * image.shape[0] / image.shape[1]), layout="constrained")
                axes = figure.subplots()
                axes.imshow(image)
                axes.set_axis_off()
                draw_skeleton(axes, keypoints[:, :2], np.ones(len(keypoints), bool), module.landmarks.bones, "red")
                save_figure(figure, folder / "predictions" / f"{Path(name).stem}.png")
        write_atomically(folder / "predictions.json", json.dumps(records, indent=1).encode())
        print(f"wrote {len(records)} predictions to {folder / 'predictions.json'}")
