"""A head for mmpose 1.x: integral regression, trained by samples; predictions, codec and test-time augmentation stay mmpose's.

In a config of mmpose, beside a codec of type ``RegressionLabel``::

    custom_imports = dict(imports=["mmpose_head"], allow_failed_imports=False)  # this file on PYTHONPATH
    head = dict(type="SamplingArgmaxHead", in_channels=2048, in_featuremap_size=(6, 8), num_joints=17, decoder=codec)
"""

from typing import Any

import torch
from mmpose.models.heads import IntegralRegressionHead
from mmpose.registry import MODELS
from torch import Tensor

from sampling_argmax_cuda import expected_error, soft_argmax


@MODELS.register_module()
class SamplingArgmaxHead(IntegralRegressionHead):
    """mmpose's head with deconvolutions, whose loss is the expectation of the error over samples.

    Args:
        num_samples: samples of a map, >= 1.
        tau: their temperature, > 0.
        basis: triangular, uniform, gaussian or none.
        metric: l1, l2, euclidean or smooth_l1, in cells of the maps.
        loss_weight: factor of the loss.
        kwargs: mmpose's, of ``IntegralRegressionHead``.
    """

    def __init__(self, *args, num_samples: int = 30, tau: float = 1.0, basis: str = "triangular", metric: str = "l1",
                 loss_weight: float = 1.0, **kwargs) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        if self.simplebaseline_head is None:
            raise ValueError("SamplingArgmaxHead: deconv_out_channels must not be empty")
        self.loss_weight = loss_weight
        self.sampling: dict[str, Any] = dict(num_samples=num_samples, tau=tau, basis=basis, metric=metric)

    def loss(self, inputs: tuple[Tensor, ...], batch_data_samples: list, train_cfg: object = None) -> dict[str, Tensor]:
        """The loss, and the share of points that are nearer than a twentieth of the image."""
        given = [sample.gt_instance_labels for sample in batch_data_samples]
        labels = torch.cat([x.keypoint_labels for x in given])  # [B, K, 2] in [0, 1]
        weights = torch.cat([x.keypoint_weights for x in given])  # [B, K]
        logits = self.simplebaseline_head(inputs)  # [B, K, H, W], before the softmax
        size = labels.new_tensor(self.heatmap_size)  # W, H; mmpose's 0 is the first cell, and 1 one behind the last
        per_point = expected_error(logits, labels * size, weights, **self.sampling)
        with torch.no_grad():
            near = (soft_argmax(logits) / size - labels).norm(dim=-1) < 0.05
            accuracy = (near * (weights > 0)).sum() / (weights > 0).sum().clamp(min=1)
        return {"loss_kpt": self.loss_weight * per_point.mean(), "acc_pose": accuracy}
