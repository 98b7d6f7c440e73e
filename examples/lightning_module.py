"""A LightningModule of your own: the objective is a part of it, so checkpoints have its temperature."""

import argparse
from typing import Any

import lightning
import torch
from plain_loop import STRIDE, draw, network
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from sampling_argmax_cuda.objectives import make_objective


class Dots(lightning.LightningModule):
    """Localizes three dots.

    Args:
        objective: name of what is trained: sampling, soft, cross_entropy, heatmap, ...
        lr: learning rate.
    """

    def __init__(self, objective: str = "sampling", lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net, self.objective = network(), make_objective(objective)
        self.losses: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        """Positions ``[B, 3, 2]`` in pixels of images ``[B, 3, H, W]``."""
        return self.objective.read(self.net(images))[0] * STRIDE

    def on_train_epoch_start(self) -> None:
        self.objective.set_epoch(self.current_epoch)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, centre = batch
        loss = self.objective.loss(self.net(images), centre / STRIDE).mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.losses.append(float(self.trainer.callback_metrics["loss"]))

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        images, centre = batch
        self.log("error_px", (self(images) - centre).norm(dim=-1).mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.net.parameters(), lr=self.hparams["lr"])


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    parser.add_argument("--objective", default="sampling")
    options = parser.parse_args(argv)
    lightning.seed_everything(0, verbose=False)
    count, epochs = (160, 3) if options.smoke else (3200, 10)
    generator = torch.Generator().manual_seed(0)
    train, val = (DataLoader(TensorDataset(*draw(n, generator)), 16, shuffle=n == count) for n in (count, 64))
    module = Dots(options.objective)
    quiet: dict[str, Any] = dict(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer = lightning.Trainer(max_epochs=epochs, num_sanity_val_steps=0, log_every_n_steps=1, **quiet)
    trainer.fit(module, train, val)
    print(f"loss {', '.join(f'{x:.3f}' for x in module.losses)}; error {trainer.callback_metrics['error_px']:.2f} px")
    return module.losses


if __name__ == "__main__":
    main()
