"""Lightning's trainer, with predictions that are written and not kept."""

from pathlib import Path

import lightning

from ..calibration.calibration import Radius
from .calibrating import calibrate


class TaskTrainer(lightning.Trainer):
    """Lightning's trainer with one more command, and without predictions in memory."""

    show_maps = False
    checkpoint: str | None = None  # of the weights that predict

    def predict(
        self,
        model: lightning.LightningModule | None = None,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Predict on a folder of inputs, and write what is found.

        Args:
            model: the model that predicts.
            datamodule: the data whose inputs are predicted on.
            ckpt_path: checkpoint of the weights; last or best of the run, or a path.
            weights_only: load nothing but tensors and plain objects from the checkpoint.
        """
        self.checkpoint = ckpt_path
        # Lightning would keep the predictions of all inputs, maps included, and return them.
        super().predict(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only,
                        return_predictions=False)  # fmt: skip

    def visualize(self, **kwargs) -> None:
        """Predict on a folder of inputs and draw every map with samples and their spread; arguments as of :meth:`predict`."""
        self.show_maps = True
        self.predict(**kwargs)

    def calibrate(
        self,
        model: lightning.LightningModule | None = None,
        datamodule: lightning.LightningDataModule | None = None,
        ckpt_path: str | None = None,
        radius: str = "5%",
        split_seed: int = 0,
    ) -> None:
        """Fit on validation data how sure the network is, and write a calibrated checkpoint and a report.

        Args:
            model: the model that is calibrated.
            datamodule: the data whose validation part it is calibrated on.
            ckpt_path: checkpoint to calibrate; last or best of the run, or a path.
            radius: error up to which a point counts as found: pixels of the image, as 4, or percent of the longer side of the
                crop that the network sees, as 5%.
            split_seed: seed, >= 0, of the halves of the images: one to fit on, one to report on.
        """
        calibrate(self, model, datamodule, Path(ckpt_path), Radius.of(radius), split_seed)
