"""SLEAP's files (.slp), with their images in them or beside them, through sleap-io."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ....trainers.sources import Video
from ..files import ImageFinder, parts_of
from .labelled import Export, Individual, LabelledImage, found_file, points_from


def _loaded(path: Path):
    """The file's content. Raises ValueError in one line for what is none."""
    import sleap_io

    try:
        labels = sleap_io.load_slp(str(path), open_videos=False)
    except Exception as error:  # of HDF5, of JSON within it, of whatever is missing there
        raise ValueError(f"{path}: sleap-io cannot read it as SLEAP's file: {error}") from error
    if len(labels.skeletons) != 1 or not labels.skeletons[0].nodes:
        told = ", ".join(f"{own.name} ({', '.join(own.node_names)})" for own in labels.skeletons) or "none"
        raise ValueError(f"{path}: expected one skeleton, got {told}")
    return labels


def _individual(instance) -> Individual:
    """Points that are marked as not visible have a place that nobody set."""
    coordinates = np.where(instance.points["visible"][:, None], instance.points["xy"], np.nan)
    return Individual(points_from(coordinates), None if instance.track is None else instance.track.name)


class Frames:
    """Where the frames of a video of the export are: in the file, in images of their own, or in a video file.

    Args:
        path: of the export.
        video: sleap-io's.
        finder: of images and videos beside the export.
        export: what is missing is noted there.
    """

    def __init__(self, path: Path, video, finder: ImageFinder, export: Export) -> None:
        self.video, self.finder, self.export = video, finder, export
        self.embedded = isinstance(video.filename, str) and parts_of(video.filename)[-1] == path.name
        video.open_backend = self.embedded  # when a frame is asked for; others are read as files
        source = (video.source_video or video).filename
        self.files = source if isinstance(source, list) else []
        parts = parts_of(self.files[0] if self.files else source)
        self.name = parts[-2] if self.files and len(parts) > 1 else Path(parts[-1]).stem
        self._opened: Video | None = None

    def called(self, frame: int) -> str:
        """A frame's new name: that of its image, if no other frame has the same, or else its number."""
        names = [parts_of(file)[-1] for file in self.files]
        own = names[frame] if len(set(names)) == len(names) > frame else f"{frame:06d}.png"
        return f"{self.name}/{Path(own).stem}.png" if self.embedded else f"{self.name}/{own}"

    def image(self, frame: int) -> Path | Callable[[], np.ndarray] | None:
        """A frame's file or decoder; None, with a note, where it is not there."""
        if self.embedded:
            return partial(self._decoded, frame)
        if self.files:
            return found_file(self.finder, self.files[frame], self.export)
        if self._opened is None:
            file = found_file(self.finder, self.video.filename, self.export, "frames of videos")
            self._opened = None if file is None else Video(file)
        return None if self._opened is None else partial(self._opened.read, frame)

    def _decoded(self, frame: int) -> np.ndarray:
        image = np.asarray(self.video[frame])
        return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image


def read_sleap(path: Path, images: Path) -> Export:
    """The labels of people, not of networks; images and videos that are not in the file are looked for below a folder."""
    labels = _loaded(path)
    (skeleton,) = labels.skeletons
    export = Export(skeleton.node_names, skeleton.edge_inds, skeleton.name or "object")
    finder = ImageFinder(images, path)
    videos = _videos(path, labels.videos, finder, export)
    places = {key: i for i, key in enumerate(videos)}
    for frame in sorted(labels, key=lambda own: (places[id(own.video)], own.frame_idx)):
        own, people = videos[id(frame.video)], [_individual(instance) for instance in frame.user_instances]
        name, source = own.called(frame.frame_idx), own.image(frame.frame_idx) if people else None
        if not people and frame.predicted_instances:
            export.drop("images with predictions of a network alone", name)
        if source is not None:
            export.add(LabelledImage(name, source, people, own.name))
    return export


def _videos(path: Path, videos: list, finder: ImageFinder, export: Export) -> dict[int, Frames]:
    """The videos, by sleap-io's; each has a name of its own."""
    found, names = {}, Counter()
    for video in videos:
        own = found[id(video)] = Frames(path, video, finder, export)
        names[own.name] += 1
        own.name += f"_{names[own.name]}" * (names[own.name] > 1)
    return found
