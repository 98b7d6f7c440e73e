"""Tiny networks of other libraries with random weights, saved as their own files."""

import json
from pathlib import Path

import torch
import transformers

MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.25, 0.2)
VIT = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
VITPOSE = dict(**VIT, image_size=[64, 64], patch_size=[16, 16], mlp_ratio=2)
HEAD = {"upsample_out_channels": [16, 16], "conv_out_channels": [16]}


def _backbone(kind: str, **options) -> transformers.PreTrainedModel:
    return transformers.AutoBackbone.from_config(transformers.AutoConfig.for_model(kind, **options))


def _vitpose(points: int = 17, **more) -> transformers.PreTrainedModel:
    backbone = transformers.VitPoseBackboneConfig(**VITPOSE, out_indices=[2], **more)
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=points)
    return transformers.VitPoseForPoseEstimation(config)


def _sapiens2() -> transformers.PreTrainedModel:
    config = transformers.Sapiens2Config(**VIT, image_size=[64, 64], patch_size=16, intermediate_size=64, head_config=HEAD,
                                         num_labels=17)  # fmt: skip
    return transformers.Sapiens2ForPoseEstimation(config)


MAKERS = {
    "convnext": lambda: _backbone("convnext", depths=[1] * 4, hidden_sizes=[8, 16, 24, 32]),
    "resnet": lambda: _backbone("resnet", depths=[1] * 4, hidden_sizes=[8, 16, 24, 32], embedding_size=8, layer_type="basic"),
    "dinov2": lambda: _backbone("dinov2", **VIT, image_size=56, patch_size=14, mlp_ratio=2),
    "vitpose": _vitpose,
    "vitpose_plus": lambda: _vitpose(num_experts=3, part_features=8),
    "sapiens2": _sapiens2,
}  # fmt: skip


def write(kind: str, folder: Path, normalised: bool = True) -> Path:
    """The folder of a network, whose norms have statistics of their own as trained ones have."""
    torch.manual_seed(len(kind))
    model = MAKERS[kind]()
    with torch.no_grad():
        for name, x in (*model.named_parameters(), *model.named_buffers()):
            if x.is_floating_point():
                x.add_(0.1 * torch.rand_like(x))
            if name.endswith("running_var"):
                x.mul_(2)
    model.save_pretrained(folder)
    if normalised:
        said = {
            "do_normalize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "image_mean": MEAN,
            "image_std": STD,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder
