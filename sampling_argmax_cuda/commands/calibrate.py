"""``sampling-argmax calibrate``: how sure the network of a checkpoint is, made true on the validation data of its task."""

import lightning

from ..trainers.landmark_module import LandmarkModule
from . import fit
from .tasks import TASKS


class CalibrateCLI(fit.TaskCLI):
    """The command line of a task without what a run leaves behind: a calibration has files of its own."""

    def _parse_ckpt_path(self) -> None:
        if not issubclass(self.module, LandmarkModule):
            known = ", ".join(name for name, (module, _) in TASKS.items() if issubclass(module, LandmarkModule))
            raise ValueError(f"calibrate: needs points on images (tasks {known}), got task {self.choice.task}")
        if self.choice.checkpoint is None:
            raise ValueError("calibrate: --ckpt_path must name the checkpoint to calibrate")
        super()._parse_ckpt_path()

    def instantiate_trainer(self, **kwargs) -> lightning.Trainer:
        return super().instantiate_trainer(**{"logger": False, **kwargs})

    def callbacks(self) -> list:
        return []


def main(argv: list[str]) -> int:
    """Calibrate a checkpoint; a wrong input prints one line and gives status 1."""
    return fit.run(CalibrateCLI, argv)
