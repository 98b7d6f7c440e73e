"""The tasks that train an objective: its loss over the stages of a network, and its reduction to one number."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..objectives import Objective, complete, make_objective
from ..objectives.answers import Answer, output_of
from ..objectives.decoders import Decoder
from ..objectives.reduction import reduce_loss
from ..objectives.targets import Target
from .trained_module import TrainedModule, rank_mean, step_seed

REDUCTIONS = ("mean", "batch", "visible", "axes")


class ObjectiveModule(TrainedModule):
    """Trains one of the objectives. A task says what the network is and what it is scored by.

    Args:
        objective: name, or name and options, of what is trained (--objective NAME --help lists them).
        loss_scale: factor of the loss, > 0; the released 3-D code has 64, with units centered and reduction axes.
        reduction: mean, batch (sum / B, as released), visible (sum / visible points) or axes (sum / known coordinates).
        decoder: how evaluation reads a position off its map: mean (soft-argmax), mode (the largest cell) or local (soft-argmax
            within decoder_radius of the largest cell); null as it is trained.
        decoder_radius: half the side of decoder local's window, > 0, in cells (null for 3), or its radius in a point cloud's units.
    """

    axes = 2  # coordinates of a point
    default_objective: Mapping[str, object] = {"name": "sampling", "tau": "coco"}
    objective: Objective

    def __init__(
        self,
        objective: str | Mapping | None = None,
        loss_scale: float = 1.0,
        reduction: str = "batch",
        decoder: str | None = None,
        decoder_radius: float | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not loss_scale > 0:
            raise ValueError(f"model: loss_scale must be > 0, got {loss_scale}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"model: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.hparams.objective = complete(self.default_objective if objective is None else objective)
        self.objective = make_objective(self.hparams.objective, self.axes)
        self.objective.decoder = self._decoder()
        self._counts: list[Tensor] = []  # known points (or coordinates) of the batches of a step

    def _decoder(self) -> Decoder | None:
        """How evaluation reads positions, None for as they are trained."""
        h = self.hparams
        if h.decoder is None:
            return None
        if self.objective.regresses:
            raise ValueError(f"model: a decoder needs an objective with maps, got {h.objective['name']}")
        try:
            return Decoder(h.decoder, h.decoder_radius)
        except ValueError as error:
            raise ValueError(f"model: {error}") from None

    def rows(self, batch: dict[str, Tensor]) -> tuple[Answer | list[Tensor], Target]:
        """The network's output ``[B, K, ...]`` for a batch of training, and where the points are.

        A list of outputs is one of each stage of the network: every one is trained, alike.
        """
        raise NotImplementedError

    # ---- training ----

    free = TrainedModule.free | {"objective.flow_lr", "model.decoder", "model.decoder_radius"}

    def on_train_batch_start(self, batch: dict[str, Tensor], index: int) -> None:
        super().on_train_batch_start(batch, index)
        first = index - self.micro_batch  # all batches of a step have one temperature, as one large batch has
        epoch = self.current_epoch + first / self.trainer.num_training_batches
        self.objective.set_epoch(self.current_epoch, min(epoch / self._run_epochs(), 1.0))  # the temperature

    def _run_epochs(self) -> float:
        """Epochs of the whole run: as many as are wanted, or as its steps make; of a run without an end none is a part."""
        trainer = self.trainer
        steps = trainer.max_steps * trainer.accumulate_grad_batches / trainer.num_training_batches
        wanted = [trainer.max_epochs or -1, steps]
        return min((epochs for epochs in wanted if epochs > 0), default=math.inf)

    def epoch_numbers(self) -> dict[str, float]:
        return {"tau": self.tau, **super().epoch_numbers()}

    def row_seed(self, output: Tensor) -> Tensor:
        """The seed of a step's noise: a rank draws that of its rows of the global batch, in each of its parts."""
        first_row = (self.micro_batch * self.trainer.world_size + self.global_rank) * output.shape[0] * output.shape[1]
        return step_seed(self.hparams.seed, self.global_step, first_row, output.device)

    def step_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch."""
        outputs, target = self.rows(batch)
        return self.stage_loss(outputs if isinstance(outputs, list) else [outputs], target, batch)

    def stage_loss(self, outputs: list[Answer], target: Target, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch from the outputs of every stage of the network."""
        total = 0
        for output in outputs:
            per_point = self.objective.loss(output, target, seed=self.row_seed(output_of(output)))
            total = total + self._reduce(per_point + self.extra_loss(output, target), target)
        return self.hparams.loss_scale * total

    def extra_loss(self, output: Tensor, target: Target) -> Tensor | float:
        """What a task adds to the loss of every point ``[B, K]``."""
        return 0.0

    def _reduce(self, per_point: Tensor, target: Target) -> Tensor:
        reduction = self.hparams.reduction
        if reduction in ("mean", "batch"):
            return reduce_loss(per_point, reduction=reduction)
        target = target.known()
        known = 1 if reduction == "visible" else len(target.size) if target.axes is None else target.axes.sum(-1)
        # The count of all ranks: a mean of the ranks' means would weigh their points unequally.
        self._count = rank_mean((target.weight * known).sum())
        return per_point.sum() / self._count.clamp(min=1)

    def _adds_up_counts(self) -> bool:
        return self.trainer.accumulate_grad_batches > 1 and self.hparams.reduction in ("visible", "axes")

    def to_add_up(self, loss: Tensor) -> Tensor:
        if not self._adds_up_counts():
            return loss
        # Sums can be added up and means cannot; all points of the step are known after its last batch.
        self._counts.append(self._count)
        return loss * self._count.clamp(min=1)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._adds_up_counts():
            count = sum(self._counts).clamp(min=1) / len(self._counts)
            self._counts.clear()
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad /= count

    @property
    def tau(self) -> float:
        """The temperature of the samples, 1 for an objective without samples."""
        return self.objective.tau
