"""Figures: points and skeletons on images and in space, maps with samples and their spread, curves of a run."""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from ..objectives.answers import Answer, answer_in, output_of
from ..objectives.objective import Objective
from .files import write_atomically
from .transforms import MEAN, STD


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def shown_image(image: Tensor) -> np.ndarray:
    """A normalised ``[3, H, W]`` input as an RGB image in [0, 1]."""
    return np.clip(image.float().cpu().numpy().transpose(1, 2, 0) * STD + MEAN, 0, 1)


def draw_skeleton(axes, points: np.ndarray, visible: np.ndarray, bones, color: str, label: str | None = None) -> None:
    """Points ``[K, 2 or 3]``, and the bones between visible ones."""
    for a, b in bones:
        if visible[a] and visible[b]:
            axes.plot(*points[[a, b]].T, "-", color=color, lw=1.2, alpha=0.8)
    axes.plot(*points[visible].T, "o", color=color, ms=2.5, label=label)


def draw_in_space(axes, poses: dict[str, np.ndarray], bones) -> None:
    """Poses ``[K, 3]`` in mm (x right, y down, z away from the camera), each by its colour, seen from the front."""
    for color, pose in poses.items():
        draw_skeleton(axes, pose[:, [0, 2, 1]] * [1, 1, -1], np.ones(len(pose), bool), bones, color)
    every = np.concatenate(list(poses.values()))
    axes.set_box_aspect((1, 1, 1))
    middle, reach = (every.max(0) + every.min(0)) / 2, np.ptp(every, axis=0).max() / 2
    axes.set(xlim=middle[0] + np.array([-reach, reach]), ylim=middle[2] + np.array([-reach, reach]),
             zlim=-middle[1] + np.array([-reach, reach]))  # fmt: skip
    axes.view_init(elev=15, azim=-70)
    axes.tick_params(labelsize=5)


def put_points(axes, points, style: str, **more) -> None:
    """Points ``[n, 3]`` whose y axis points up."""
    x, y, z = np.asarray(points, float).T
    axes.plot(x, z, y, style, **more)


def cloud_axes(figure: Figure, clouds) -> list:
    """One panel in space a cloud of ``[n, N, 3]``, with every second point of it in grey."""
    panels = []
    for i, cloud in enumerate(clouds):
        axes = figure.add_subplot(1, len(clouds), i + 1, projection="3d")
        put_points(axes, cloud[::2], ".", color="gray", ms=1, alpha=0.4)
        axes.set_aspect("equal")
        axes.tick_params(labelsize=5)
        panels.append(axes)
    return panels


def draw_spread(axes, draws: np.ndarray) -> None:
    """Samples ``[S, 2]`` with the ellipse of one standard deviation around their mean."""
    axes.plot(*draws.T, ".", color="cyan", ms=3, label="samples")
    if len(draws) > 1:
        variance, direction = np.linalg.eigh(np.cov(draws.T))
        width, height = 2 * np.sqrt(variance.clip(0))
        angle = np.degrees(np.arctan2(direction[1, 0], direction[0, 0]))
        axes.add_patch(Ellipse(draws.mean(0), width, height, angle=angle, fill=False, color="cyan", lw=1))


def draw_widths(axes, points: np.ndarray, sigma: np.ndarray, visible: np.ndarray) -> None:
    """The predicted width of each point ``[K, 2]`` as an ellipse of one sigma."""
    for (x, y), (width, height) in zip(points[visible], 2 * sigma[visible], strict=True):
        axes.add_patch(Ellipse((x, y), width, height, fill=False, color="orange", lw=0.8))


def flat_maps(output: Tensor, objective: Objective) -> np.ndarray:
    """The maps ``[B, K, H, W]`` of a network's output, summed over depth."""
    maps = objective.maps(output)
    return (maps.sum(2) if maps.dim() == 5 else maps).cpu().numpy()


def cells_extent(image: np.ndarray, heat: np.ndarray) -> tuple[float, float, float, float]:
    """Where the cells of a map lie on its image: cell i is about the centre of pixel ``i * stride``."""
    (height, width), (rows, columns) = image.shape[:2], heat.shape
    x, y = width / columns / 2, height / rows / 2
    return -x, width - x, height - y, -y


def draw_map(axes, image: np.ndarray, heat: np.ndarray, draws: np.ndarray | None) -> None:
    """A map over its image, with samples ``[S, 2]`` in pixels of it."""
    axes.imshow(image, alpha=0.5)
    axes.imshow(heat, extent=cells_extent(image, heat), cmap="magma", alpha=0.7)
    if draws is not None:
        draw_spread(axes, draws)


def draw_samples(output: Answer, objective: Objective, count: int, stride: int = 4) -> np.ndarray | None:
    """Samples ``[B, K, count, 2]`` of the objective in pixels of the input, or None where it trains none."""
    draws = objective.samples(output, num_samples=count, seed=0)
    return None if draws is None else draws[..., :2].cpu().numpy() * stride


def stride_of(images: Tensor, output: Tensor, objective: Objective) -> int:
    """Pixels of images ``[..., H, W]`` a cell of their maps; 4 where there are none."""
    return 4 if objective.regresses else images.shape[-1] // output.shape[-1]


def overlay_figure(preview: dict[str, Tensor], objective: Objective, bones, rows: int = 4, joints: int = 3,
                   samples: int = 30) -> Figure:  # fmt: skip
    """Each row: prediction and target on the image, then maps of a few joints with their target and, if any, samples."""
    image, stride = preview["image"], stride_of(preview["image"], preview["output"], objective)
    answer = answer_in({key: preview[key][:rows] for key in ("output", "offset", "cell_sigma") if key in preview})
    rows, joints = min(rows, len(image)), 0 if objective.regresses else joints
    figure = Figure(figsize=(3 * (joints + 1), 3.2 * rows), layout="constrained")
    grid = figure.subplots(rows, joints + 1, squeeze=False)
    position, target = (preview[k][:rows, :, :2].float().cpu().numpy() * stride for k in ("position", "target"))
    visible = preview["weight"][:rows].cpu().numpy() > 0
    maps = None if objective.regresses else flat_maps(output_of(answer), objective)
    draws = draw_samples(answer, objective, samples, stride)
    for i in range(rows):
        shown = shown_image(image[i])
        grid[i, 0].imshow(shown)
        draw_skeleton(grid[i, 0], target[i], visible[i], bones, "lime", "target")
        draw_skeleton(grid[i, 0], position[i], visible[i], bones, "red", "prediction")
        if "sigma" in preview:
            widths = preview["sigma"][i, :, :2].float().cpu().numpy() * stride
            draw_widths(grid[i, 0], position[i], widths, visible[i])
        chosen = np.flatnonzero(visible[i])[:: max(1, visible[i].sum() // max(1, joints))]
        for axes, joint in zip(grid[i, 1:], chosen, strict=False):
            draw_map(axes, shown, maps[i, joint], None if draws is None else draws[i, joint])
            axes.plot(*target[i, joint], "+", color="lime", ms=10, mew=2, label="target")
            axes.set_title(f"joint {joint}", fontsize=8)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes in grid[0, :2]:
        axes.legend(fontsize=7, loc="lower left")
    return figure


def maps_figure(image: Tensor, output: Answer, objective: Objective, position: Tensor, names) -> Figure:
    """Every map of one image ``[3, H, W]`` and the position read off; of an objective with samples 100 and their spread in cells.

    ``output`` is ``[1, K, ...]``, ``position`` ``[K, >= 2]`` in cells.
    """
    columns = min(6, len(names))
    lines = -(-len(names) // columns)
    shown = shown_image(image)
    figure = Figure(figsize=(2 * columns, 2.3 * lines * shown.shape[0] / shown.shape[1]), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flat
    stride = stride_of(image, output_of(output), objective)
    maps, draws = flat_maps(output_of(output), objective)[0], draw_samples(output, objective, 100, stride)
    for k, (axes, name) in enumerate(zip(grid, names, strict=False)):
        draw_map(axes, shown, maps[k], None if draws is None else draws[0, k])
        axes.plot(*(position[k, :2].float().cpu().numpy() * stride), "x", color="red", ms=6)
        spread = "" if draws is None else f" ±{np.sqrt(draws[0, k].var(0).sum()) / stride:.1f}"
        axes.set_title(f"{name}{spread}", fontsize=7)
    for axes in grid:
        axes.set_axis_off()
    return figure


def curves_figure(history: list[dict[str, float]], names: list[str]) -> Figure:
    """Logged numbers by epoch, one panel a name."""
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False).flat, names, strict=True):
        points = [(row["epoch"], row[name]) for row in history if name in row]
        axes.plot(*zip(*points, strict=True), "o-", ms=3)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.grid(alpha=0.3)
    return figure


def prediction_figure(image: np.ndarray, points: np.ndarray, bones) -> Figure:
    """Points ``[K, 2]`` in pixels on an RGB image."""
    figure = Figure(figsize=(6, 6 * image.shape[0] / image.shape[1]), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image)
    axes.set_axis_off()
    draw_skeleton(axes, points, np.ones(len(points), bool), bones, "red")
    return figure


def table_figure(rows: list[dict[str, str | float]], label: str, value: str) -> Figure:
    """A bar of ``value`` for each row, by its ``label``; a row without it has none."""
    figure = Figure(figsize=(6, 1 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(rows)), [row.get(value, float("nan")) for row in rows], color="tab:blue")
    axes.set_yticks(range(len(rows)), [row[label] for row in rows], fontsize=7)
    axes.set_xlabel(value)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return figure
