"""torchvision's Keypoint R-CNN, its points trained by samples: two functions stand in the places of torchvision's own."""

import argparse

import torch
from plain_loop import draw
from torch import Tensor, nn
from torchvision.models.detection import KeypointRCNN, keypointrcnn_resnet50_fpn, roi_heads
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor

from sampling_argmax_cuda import LocalizationLoss, heatmap_moments

criterion = LocalizationLoss("energy", coords="index", metric="euclidean", num_samples=30)  # in cells, 56 a box


def sampled_loss(logits: Tensor, proposals: list[Tensor], gt_keypoints: list[Tensor], matched: list[Tensor]) -> Tensor:
    """In the place of ``keypointrcnn_loss``, logits ``[R, K, 56, 56]``: what is out of its box or not visible does not count."""
    boxes = torch.cat(proposals)[:, None]  # [R, 1, 4]: x1, y1, x2, y2, the edges of the map's outer cells
    points = torch.cat([x[i] for x, i in zip(gt_keypoints, matched, strict=True)])  # [R, K, 3]: x, y, visibility
    part = (points[..., :2] - boxes[..., :2]) / (boxes[..., 2:] - boxes[..., :2])
    inside = ((part >= 0) & (part <= 1)).all(-1)
    return criterion(logits, logits.shape[-1] * part - 0.5, inside & (points[..., 2] > 0))


def moments_inference(logits: Tensor, boxes: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """In the place of ``keypointrcnn_inference``: soft-argmax as x, y, 1, and the peak's probability, of each image's boxes."""
    whole, counts = torch.cat(boxes)[:, None], [len(x) for x in boxes]
    cells, _, peak, _ = heatmap_moments(logits)
    position = whole[..., :2] + (cells + 0.5) / logits.shape[-1] * (whole[..., 2:] - whole[..., :2])
    return list(torch.cat([position, torch.ones_like(peak)[..., None]], -1).split(counts)), list(peak.split(counts))


def network(points: int, pretrained: bool) -> nn.Module:
    """torchvision's network of COCO with a last layer for other points, or a small one for images of 64 pixels."""
    if pretrained:
        whole = keypointrcnn_resnet50_fpn(weights="DEFAULT", box_score_thresh=0.0)
        whole.roi_heads.keypoint_predictor = KeypointRCNNPredictor(512, points)
        return whole
    layers = [nn.Conv2d(3, 32, 5, 2, padding=2), nn.ReLU(), nn.Conv2d(32, 32, 5, 2, padding=2), nn.ReLU()]
    backbone = nn.Sequential(*layers)
    backbone.out_channels = 32  # type: ignore[assignment]  # a number that torchvision asks for
    return KeypointRCNN(backbone, num_classes=2, min_size=64, max_size=64, box_batch_size_per_image=16, box_score_thresh=0.0,
                        box_detections_per_img=1, rpn_pre_nms_top_n_train=64, rpn_pre_nms_top_n_test=64,
                        rpn_anchor_generator=AnchorGenerator(((24, 40, 56),), ((0.5, 1.0, 2.0),)), keypoint_head=
                        KeypointRCNNHeads(32, (64, 64)), keypoint_predictor=KeypointRCNNPredictor(64, points))  # fmt: skip


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="as short as a test needs it")
    parser.add_argument("--pretrained", action="store_true", help="with torchvision's weights")
    options = parser.parse_args(argv)
    roi_heads.keypointrcnn_loss, roi_heads.keypointrcnn_inference = sampled_loss, moments_inference
    torch.manual_seed(0)
    generator, net = torch.Generator().manual_seed(0), network(3, options.pretrained)
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=1e-3), []
    for _ in range(25 if options.smoke else 1000):
        images, centre = draw(4, generator)
        points = torch.cat([centre + 0.5, torch.ones(4, 3, 1)], -1)  # torchvision's first pixel is from 0 to 1
        boxes = torch.cat([(centre - 6).amin(1), (centre + 7).amax(1)], -1).split(1)
        targets = [{"boxes": box, "labels": torch.tensor([1]), "keypoints": x}
                   for box, x in zip(boxes, points.split(1), strict=True)]  # fmt: skip
        loss = net(list(images), targets)
        optimizer.zero_grad()
        torch.stack(list(loss.values())).sum().backward()
        optimizer.step()
        losses.append(loss["loss_keypoint"].item())
    images, centre = draw(32, generator)
    with torch.inference_mode():
        found = net.eval()(list(images))
    box = torch.cat([x["boxes"][:1] for x in found])[:, None]  # the best one of each image
    error = (torch.cat([x["keypoints"][:1] for x in found])[..., :2] - 0.5 - centre).norm(dim=-1)
    inside = ((centre > box[..., :2]) & (centre < box[..., 2:])).all(-1)
    print(f"loss {losses[0]:.2f} to {losses[-1]:.2f} cells, error in the found boxes {error[inside].mean():.2f} px")
    return losses


if __name__ == "__main__":
    main()
