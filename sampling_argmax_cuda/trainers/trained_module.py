"""What the training of all tasks shares: optimizer, learning rate, seeds, logs, checkpoints, the end of a validation."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from torch import Tensor

from .evaluation import Evaluation
from .messages import tell
from .precision import keep_geometry
from .resume import changed_options, check_options, reopen_epoch
from .upgrade import upgrade
from .weights import describe

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop,
              "sgd": partial(torch.optim.SGD, momentum=0.9)}  # fmt: skip


def step_seed(seed: int, step: int, first_row: int, device: torch.device) -> Tensor:
    """Key and first row of a step's noise: a pure function of the run's seed and the step."""
    return torch.tensor([seed << 32 | step, first_row], dtype=torch.int64, device=device)


def rank_mean(x: Tensor) -> Tensor:
    """The mean over all processes of what each has of a tensor without gradients."""
    if not torch.distributed.is_initialized():
        return x
    x = x.clone()
    torch.distributed.all_reduce(x)
    return x / torch.distributed.get_world_size()


def gather_objects(items: list) -> list:
    """The items of all ranks, in rank order."""
    if not torch.distributed.is_initialized():
        return items
    parts = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


class TrainedModule(lightning.LightningModule):
    """A network that is trained. A task declares its parts: the network, an evaluation, and what else it has.

    A part of the module with an attribute ``lr`` has a learning rate of its own, that factor of the others'.

    Args:
        optimizer: adam, adamw, rmsprop or sgd (with momentum 0.9).
        lr: learning rate, > 0.
        lr_world: multiply the learning rate by the number of processes.
        milestones: epochs, >= 0, at which the learning rate falls to a tenth.
        restarts: epochs, >= 0, at which the learning rate begins again, later milestones counting from there.
        weight_decay: weight decay, >= 0, of matrices and kernels; norms, biases and other vectors have none.
        clip_each: longest gradient of each parameter by itself, > 0, as RLE's code has it; null for no limit.
        seed: seed of the noise of training, in [0, 2^31).
    """

    task: str  # the name in the command line
    linked: Mapping[str, str] = {}  # options of the model that the data takes over, and their names there
    from_data: Mapping[str, str] = {}  # options of the model that the data knows once it is made, and their names there
    best: tuple[str, str]  # a metric of the evaluation, and whether its min or max is best
    model: torch.nn.Module  # the network
    evaluation: Evaluation
    # Options that a resumed run may change: they hold from there on. All others are the checkpoint's.
    free = frozenset(
        f"model.{name}" for name in ("lr", "lr_world", "milestones", "restarts", "weight_decay", "clip_each")
    )

    def __init__(
        self,
        optimizer: str = "adam",
        lr: float = 1e-3,
        lr_world: bool = False,
        milestones: tuple[int, ...] = (90, 120),
        restarts: tuple[int, ...] = (),
        weight_decay: float = 0.0,
        clip_each: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"model: optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
        if not lr > 0:
            raise ValueError(f"model: lr must be > 0, got {lr}")
        if not weight_decay >= 0:
            raise ValueError(f"model: weight_decay must be >= 0, got {weight_decay}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"model: seed must be in [0, 2**31), got {seed}")
        if clip_each is not None and not clip_each > 0:
            raise ValueError(f"model: clip_each must be > 0, got {clip_each}")
        self.save_hyperparameters()  # those of the subclass too
        self.preview: dict[str, Tensor] = {}
        self.micro_batch = 0  # of the batches whose gradients a step adds up, the number of this one

    def step_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch."""
        raise NotImplementedError

    def epoch_numbers(self) -> dict[str, float]:
        """What is logged of an epoch besides its loss."""
        return {"lr": self.learning_rate(self.current_epoch)}

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Named figures of the last validation."""
        raise NotImplementedError

    def write_prediction(self, item: dict[str, object], folder: Path, maps: bool) -> dict[str, object]:
        """Draw a prediction into a folder, with its maps if asked; its record of the prediction file."""
        raise NotImplementedError

    def write_tables(self, predictions: Path) -> list[Path]:
        """Write what a task has of all its predictions besides their file; the files that were written."""
        return []

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.precision == "16-true" and self.hparams.optimizer != "sgd":
            raise ValueError("trainer: precision 16-true needs model.optimizer sgd: what the others divide a step by, squares "
                             f"of gradients, is 0 in float16, got {self.hparams.optimizer}; 16-mixed and bf16-true have "
                             "them all")  # fmt: skip
        keep_geometry(self.trainer.precision_plugin)

    # ---- training ----

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups, own_rates = {}, self.rates()
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                part = next((own for own in own_rates if name.startswith(f"{own}.")), "")
                key = (part, parameter.dim() > 1)
                groups.setdefault(key, []).append(parameter)
        trained = [{"params": own, "part": part, "decays": decays} for (part, decays), own in sorted(groups.items())]
        return OPTIMIZERS[self.hparams.optimizer](trained, lr=self.hparams.lr)

    def rates(self) -> dict[str, float]:
        """The parts with a learning rate of their own, by name, each with its factor of the others'."""
        return {name: part.lr for name, part in self.named_children() if hasattr(part, "lr")}

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch."""
        h = self.hparams
        start = max((restart for restart in h.restarts if restart <= epoch), default=0)
        passed = sum(start < milestone <= epoch for milestone in h.milestones)
        return h.lr * 0.1**passed * (self.trainer.world_size if h.lr_world else 1)

    def begin_epoch(self) -> None:
        """Set what is a function of the epoch and the options, so that a resumed run needs nothing else to agree."""
        rates = {"": 1.0, **self.rates()}
        for group in self.optimizers().param_groups:
            group["lr"] = rates[group["part"]] * self.learning_rate(self.current_epoch)
            group["weight_decay"] = self.hparams.weight_decay if group["decays"] else 0.0

    def on_train_start(self) -> None:
        accumulate, batches = self.trainer.accumulate_grad_batches, self.trainer.num_training_batches
        if batches % accumulate:
            raise ValueError(
                f"trainer: batches of an epoch must be a multiple of accumulate_grad_batches {accumulate}, got {batches}"
            )
        self.begin_epoch()  # a run that goes on within an epoch has no start of one

    def on_train_epoch_start(self) -> None:
        self.begin_epoch()

    def on_train_batch_start(self, batch: dict[str, Tensor], index: int) -> None:
        accumulate = self.trainer.accumulate_grad_batches
        self.micro_batch = index % accumulate
        # Dropout draws from torch's own generator, whose state no checkpoint holds.
        number = self.global_step * accumulate + self.micro_batch
        torch.manual_seed((self.hparams.seed << 32) + (number << 12) + self.global_rank)

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        if self.hparams.clip_each is not None:
            for parameter in self.parameters():
                torch.nn.utils.clip_grad_norm_([parameter], self.hparams.clip_each)
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        loss, count = self.step_loss(batch), len(batch["index"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, sync_dist=True, batch_size=count)
        self.log_dict(self.epoch_numbers(), on_step=False, on_epoch=True, batch_size=count)
        return self.to_add_up(loss)

    def to_add_up(self, loss: Tensor) -> Tensor:
        """What a step adds up over its batches, from the loss of one; their mean is that of the one large batch."""
        return loss

    # ---- checkpoints ----

    def _global_batch(self) -> int | None:
        data = self.trainer.datamodule
        return data and data.hparams.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["task"] = self.task
        checkpoint["global_batch"] = self._global_batch()
        checkpoint["accumulate"] = self.trainer.accumulate_grad_batches

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        own = self.state_dict()
        wrong = {"missing": sorted(own.keys() - state_dict.keys()), "unknown": sorted(state_dict.keys() - own.keys())}
        wrong = wrong if strict else {}
        both = own.keys() & state_dict.keys()
        wrong["of another shape"] = sorted(key for key in both if own[key].shape != state_dict[key].shape)
        if any(wrong.values()):
            raise ValueError(f"model: the checkpoint is of a network with other options: {describe(wrong)}")
        return super().load_state_dict(state_dict, strict, assign)

    @classmethod
    def restored(cls, checkpoint: Mapping, **options) -> "TrainedModule":
        """The module of a checkpoint of :func:`.read_checkpoint`, with some options of its own."""
        saved = {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}
        module = cls(**{**saved, **options})
        module.load_state_dict(checkpoint["state_dict"])
        return module

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        upgrade(checkpoint)
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        if "accumulate" not in checkpoint:
            raise ValueError(
                "model: the checkpoint is of an older version and cannot be resumed; --model.weights starts from its weights"
            )
        lines = list(check_options(changed_options(checkpoint["hyper_parameters"], self.hparams, "model"), self.free))
        data = self.trainer.datamodule
        if data is not None:
            changes = changed_options(checkpoint["datamodule_hyper_parameters"], data.hparams, "data")
            changes.pop("data.batch_size", None)  # of a process
            if checkpoint["global_batch"] != self._global_batch():
                changes["data.global batch"] = checkpoint["global_batch"], self._global_batch()
            lines += check_options(changes, data.free)
        for line in lines:
            tell(line)
        reopen_epoch(checkpoint["loops"]["fit_loop"], checkpoint["accumulate"], self.trainer.accumulate_grad_batches)

    # ---- evaluation ----

    def scores(self) -> dict[str, float]:
        """The metrics of a validation, of the samples of all ranks."""
        return self.evaluation.compute(gather_objects, self.trainer.datamodule.val_data)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.scores().items():  # every rank has the same numbers
            self.log(f"val/{name}", value, prog_bar=name in (self.best[0], "error"))
