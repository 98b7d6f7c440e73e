"""Self-adversarial pose (Chou et al., APSIPA 2018): a discriminator that reconstructs maps, balanced with the network.

A step has one backward pass and one optimizer for both networks: what the discriminator is trained on knows nothing of the
network (its maps are detached), and what the network is trained on knows the discriminator's weights as constants. So no pass
goes through weights that have changed meanwhile, and processes that share gradients share all of a step's at once.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from .hourglass import HourglassNet
from .trained_module import TrainedModule, rank_mean


class Adversary(nn.Module):
    """The discriminator D with its balance ``k``, which is part of the checkpoints.

    With C the true maps, C' the network's and X the image: ``real = mean (D(X, C) - C)^2``, ``fake = mean (D(X, C') - C')^2``.
    D is trained on ``real - k fake``, the network on ``factor fake``, through D's input and through C' itself. After a step
    ``k <- clip(k + rate (gamma real - fake), 0, 1)``, of the means over all processes.

    Args:
        stacks: hourglasses of the discriminator, >= 1; null to train without one.
        channels: channels of its hourglasses, a multiple of 8.
        factor: factor of the network's part of the adversarial loss, > 0.
        rate: rate of the balance k, > 0.
        gamma: the balance keeps the error on the network's maps at this share, > 0, of that on true ones.
        lr: its learning rate as a factor of the network's, > 0.
        maps: number of maps K.
        norm, plain: as of :class:`.HourglassNet`.
    """

    def __init__(self, stacks: int | None = 4, channels: int = 128, factor: float = 1e-4, rate: float = 1e-3, gamma: float = 0.5,
                 lr: float = 0.4, *, maps: int, norm: str = "batch", plain: bool = False) -> None:  # fmt: skip
        super().__init__()
        for name, value in {"factor": factor, "rate": rate, "gamma": gamma, "lr": lr}.items():
            if not value > 0:
                raise ValueError(f"adversary: {name} must be > 0, got {value}")
        self.net = HourglassNet(maps, stacks, channels, norm, plain, inputs=3 + maps, reduce=False)
        self.factor, self.rate, self.gamma, self.lr = factor, rate, gamma, lr
        self._errors: list[tuple[Tensor, Tensor]] = []  # real and fake of the batches of a step
        self.register_buffer("k", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn, recurse: bool = True) -> "Adversary":
        k = self.k
        super()._apply(fn, recurse)
        self.k = k.to(self.k.device)  # float64 in a network of any precision: steps of 1e-3 are lost in 16 bits
        return self

    def _error(self, weights: dict[str, Tensor], images: Tensor, maps: Tensor) -> Tensor:
        """Mean squared error of the reconstruction of ``maps`` by a discriminator of these weights: its last stack's."""
        again = functional_call(self.net, weights, (torch.cat([images, maps], 1),))
        return ((again[-1] if isinstance(again, list) else again).float() - maps).square().mean()

    def loss(self, images: Tensor, maps: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is added to the network's loss, and ``real`` and ``fake`` without gradients, for :meth:`balance`.

        ``images`` ``[B, 3, H, W]``, ``maps`` and ``truth`` ``[B, K, H/4, W/4]``.
        """
        small = interpolate(images, maps.shape[-2:], mode="area")
        own = dict(self.net.named_parameters())
        fixed = {name: weight.detach() for name, weight in own.items()}
        maps = maps.float()
        real, fake = self._error(own, small, truth), self._error(own, small, maps.detach())
        total = real - self.k.float() * fake + self.factor * self._error(fixed, small, maps)
        return total, real.detach(), fake.detach()

    @torch.no_grad()
    def balance(self, real: Tensor, fake: Tensor) -> None:
        """Move ``k`` by ``real`` and ``fake`` of all processes."""
        self.k.add_(self.rate * (self.gamma * real.double() - fake.double())).clamp_(0, 1)

    def step(self, module: TrainedModule, images: Tensor, maps: Tensor, truth: Tensor) -> Tensor:
        """What is added to the loss of a batch of ``module``; after the last batch of a step the balance moves."""
        loss, real, fake = self.loss(images, maps, truth)
        real, fake = rank_mean(real), rank_mean(fake)
        self._errors.append((real, fake))
        if len(self._errors) == module.trainer.accumulate_grad_batches:
            self.balance(*(torch.stack(x).mean() for x in zip(*self._errors, strict=True)))
            self._errors.clear()
        measure = real + (self.gamma * real - fake).abs()
        module.log_dict({"train/real": real, "train/fake": fake, "train/k": self.k.float(), "train/measure": measure},
                        on_step=False, on_epoch=True, batch_size=len(images))  # fmt: skip
        return loss


def make_adversary(options: Mapping | None, **network) -> Adversary | None:
    """The adversary of these options, none of None or without stacks; ``network`` are the arguments that its task knows."""
    return None if options is None or options.get("stacks", 1) is None else Adversary(**options, **network)
