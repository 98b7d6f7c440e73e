"""Networks of transformers and timm in the trainers: what they see, what is trained, and checkpoints without their files."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pretrained_folders
import pytest
import torch
import transformers
from deployed import PEAKS, checkpoint, predicted, write_images
from pretrained_folders import MAKERS, MEAN, STD
from runs import last, same_weights, small
from torchvision_stand_in import import_timm

from sampling_argmax_cuda import load
from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.coco.synthetic import write_synthetic_coco
from sampling_argmax_cuda.tasks.coco.task import CocoPose
from sampling_argmax_cuda.tasks.h36m.task import H36mPose
from sampling_argmax_cuda.tasks.keypoints.synthetic import write_synthetic_keypoints
from sampling_argmax_cuda.tasks.mpii.task import MpiiPose
from sampling_argmax_cuda.trainers.descriptions import describe
from sampling_argmax_cuda.trainers.pretrained import PretrainedBackbone, PretrainedPose
from sampling_argmax_cuda.trainers.transforms import normalize

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

timm = import_timm()
PAGE = (Path(__file__).parents[1] / "docs" / "backbones.md").read_text()
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
SQUARE = IMAGES[:, :, :64]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("networks")
    return {kind: pretrained_folders.write(kind, place / kind) for kind in MAKERS}


@pytest.fixture(scope="module")
def of_timm(tmp_path_factory) -> Path:
    """A folder of timm, with a mean and a deviation of its own."""
    place = tmp_path_factory.mktemp("timm") / "net"
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=0, pretrained_cfg_overlay={"mean": MEAN, "std": STD})
    timm.models.save_for_hf(model, place)
    return place


def ours(images: np.ndarray) -> torch.Tensor:
    """Images as the trainers normalise them."""
    return torch.from_numpy(np.stack([normalize(image) for image in images]))


def theirs(images: np.ndarray) -> torch.Tensor:
    """Images as the network's own files say."""
    return ((torch.from_numpy(images) / 255.0 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def loaded(name: str, level: int | None = None) -> PretrainedBackbone:
    found = PretrainedBackbone(describe(name, level))
    found.load()
    return found.eval()


# ---- what a network sees and answers ----


@pytest.mark.parametrize("kind, level, index, stride", [
    ("convnext", None, 4, 32), ("convnext", 2, 2, 8), ("convnext", -4, 1, 4), ("resnet", 3, 3, 16),
])  # fmt: skip
def test_features_are_the_librarys_own(folders, kind, level, index, stride):
    found = loaded(f"hf:{folders[kind]}", level)
    own = type(found.inner).from_pretrained(folders[kind], out_indices=[index]).eval()
    with torch.no_grad():
        features, expected = found(ours(IMAGES)), own(theirs(IMAGES)).feature_maps[0]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert (found.stride, found.channels) == (stride, expected.shape[1])
    assert features.shape[2:] == (64 // stride, 96 // stride) and expected.std() > 1e-3


def test_a_patch_of_14_pixels_is_16_of_ours(folders):
    found = loaded(f"hf:{folders['dinov2']}")
    own = type(found.inner).from_pretrained(folders["dinov2"], out_indices=[2]).eval()
    smaller = torch.nn.functional.interpolate(theirs(IMAGES), (56, 84), mode="bilinear")
    with torch.no_grad():
        features, expected = found(ours(IMAGES)), own(smaller).feature_maps[0]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert (found.patch, found.stride) == (14, 16) and features.shape == (2, 32, 4, 6)


def test_timm_has_the_same(of_timm):
    found = loaded(f"timm:local-dir:{of_timm}", 2)
    own = timm.create_model(f"local-dir:{of_timm}", pretrained=True, features_only=True).eval()
    with torch.no_grad():
        features, expected = found(ours(IMAGES)), own(theirs(IMAGES))[2]
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert (found.stride, found.channels) == (8, expected.shape[1]) and expected.std() > 1e-3
    module = CocoPose(backbone=f"timm:local-dir:{of_timm}", head_channels=8, norm="group")
    assert module(ours(IMAGES)).shape == (2, 17, 16, 24)


def test_timms_transformers_take_images_of_any_size():
    about = describe("timm:vit_tiny_patch16_224")
    assert PretrainedBackbone(about).eval()(ours(IMAGES)).shape == (2, 192, 4, 6)


def test_without_a_preprocessor_images_are_imagenets(tmp_path):
    folder = pretrained_folders.write("convnext", tmp_path / "plain", normalised=False)
    about = describe(f"hf:{folder}")
    assert about["mean"] == [0.485, 0.456, 0.406] and about["std"] == [0.229, 0.224, 0.225]
    said = {"do_normalize": False, "do_rescale": False}  # a network of numbers from 0 to 255
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    about = describe(f"hf:{folder}")
    seen = PretrainedBackbone(about).prepared(ours(IMAGES))
    torch.testing.assert_close(seen, torch.from_numpy(IMAGES).float().permute(0, 3, 1, 2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_maps_have_a_quarter_of_the_image_for_every_stride(folders, level):
    options = dict(backbone=f"hf:{folders['resnet']}", feature_level=level, head_channels=8, norm="group")
    assert CocoPose(**options)(ours(IMAGES)).shape == (2, 17, 16, 24)


# ---- what is trained ----


@pytest.mark.parametrize(
    "kind, level", [("resnet", 2), ("dinov2", 1), ("dinov2", None), ("vitpose", None), ("sapiens2", None)]
)
def test_what_reaches_no_map_is_not_trained(folders, kind, level):
    """Everything that is trained has a gradient, as distributed training needs it; everything else would have none."""
    module = CocoPose(backbone=f"hf:{folders[kind]}", feature_level=level, head_channels=8, norm="group")
    trained = {name for name, x in module.model.named_parameters() if x.requires_grad}
    module.model.requires_grad_(True)
    module(ours(SQUARE)).square().sum().backward()
    assert trained == {name for name, x in module.model.named_parameters() if x.grad is not None}
    frozen = {name for name, _ in module.model.named_parameters()} - trained
    assert bool(frozen) == (kind in ("resnet", "dinov2")) and not any("head" in name for name in frozen)


def backbone_of(found: dict) -> dict[str, torch.Tensor]:
    prefix = "model.backbone.inner."
    return {key.removeprefix(prefix): x for key, x in found["state_dict"].items() if key.startswith(prefix)}


def trained(data: Path, folder: Path, *more: str, task: str = "keypoints") -> dict:
    """The last checkpoint of a run of a task with the options of a small one."""
    assert main(["fit", *small(task, data, folder, *more)]) == 0
    return last(folder)


@pytest.mark.parametrize("factor", [0, 0.1])
def test_a_frozen_backbone_and_a_slow_one(folders, factor, tmp_path):
    """Seen through the command: a frozen one keeps the statistics of its norms too, a slow one has its own learning rate."""
    before = transformers.AutoBackbone.from_config(transformers.AutoConfig.from_pretrained(folders["resnet"]))
    before = type(before).from_pretrained(folders["resnet"]).state_dict()
    found = trained(tmp_path, tmp_path / "run", f"--model.backbone=hf:{folders['resnet']}",
                    f"--model.backbone_lr_factor={factor}", "--trainer.max_epochs=1")  # fmt: skip
    after = backbone_of(found)
    same = {key: torch.equal(x, before[key]) for key, x in after.items()}
    assert after.keys() == before.keys() and any(key.endswith("running_mean") for key in after)
    groups = {group["part"]: group["lr"] for group in found["optimizer_states"][0]["param_groups"]}
    if factor == 0:
        assert all(same.values()) and groups.keys() == {""}
    else:
        assert not any(same.values())
        assert groups == {"": pytest.approx(1e-3), "model.backbone": pytest.approx(1e-4)}


def test_our_resnet_can_be_frozen_too():
    module = CocoPose(depth=18, head_channels=8, backbone_lr_factor=0.0).train()
    statistics = module.model.backbone.bn1.running_mean.clone()
    module(ours(IMAGES)).sum().backward()
    assert torch.equal(module.model.backbone.bn1.running_mean, statistics) and module.model.head[1].training
    assert module.model.backbone.conv1.weight.grad is None and module.model.head[0].weight.grad is not None


# ---- checkpoints ----


@pytest.mark.parametrize("kind", ["dinov2", "timm"])
def test_a_checkpoint_needs_no_file_of_the_backbone(folders, of_timm, kind, tmp_path, capfd):
    """Resumed, loaded and predicted without the folder, and the same as with it."""
    source = shutil.copytree(of_timm if kind == "timm" else folders[kind], tmp_path / "source")
    backbone = f"--model.backbone={'timm:local-dir' if kind == 'timm' else 'hf'}:{source}"
    options = (backbone, "--data.boxes=image", PEAKS, "--trainer.limit_val_batches=0")
    whole = trained(tmp_path, tmp_path / "whole", *options, "--trainer.max_epochs=2")
    trained(tmp_path, tmp_path / "parts", *options, "--trainer.max_epochs=1")
    assert capfd.readouterr().out.count("tensors loaded") == 2
    shutil.rmtree(source)
    resumed = trained(tmp_path, tmp_path / "parts", *options, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert same_weights(whole, resumed) and "tensors loaded" not in capfd.readouterr().out
    path, images = tmp_path / "whole" / "checkpoints" / "last.ckpt", write_images(tmp_path / "photos")
    found = load(path, device="cpu")(list(images.values()))
    records = predicted(tmp_path / "predicted", f"--ckpt_path={path}", f"--data.images={tmp_path / 'photos'}")
    points = np.array([record["keypoints"] for record in records]).reshape(len(records), -1, 3)
    assert np.abs(found.positions - points[..., :2]).max() <= 1e-4


@pytest.mark.parametrize("kind, file", [("dinov2", "a.onnx"), ("vitpose", "a.pt2")])
def test_an_exported_file_answers_as_the_predictor(folders, kind, file, tmp_path):
    """For any number of crops, which are normalised as always."""
    path, file = checkpoint("coco", tmp_path, f"--model.backbone=hf:{folders[kind]}", PEAKS), tmp_path / file
    assert main(["export", f"--ckpt_path={path}", f"--format={file.suffix[1:]}", f"--output={file}"]) == 0
    if kind == "dinov2":
        session = onnxruntime.InferenceSession(file)
        found = [session.run(None, {"images": ours(SQUARE)[:count].numpy()})[0] for count in (1, 2)]
    else:
        network = torch.export.load(file).module()
        found = [network(ours(SQUARE)[:count])["positions"].detach().numpy() for count in (1, 2)]
    with torch.inference_mode():
        expected = load(path, device="cpu").reader(ours(SQUARE)).positions.numpy()
    assert all(np.abs(own - expected[: len(own)]).max() <= 1e-3 for own in found) and np.ptp(expected) > 1


def test_another_backbone_than_the_checkpoints_is_refused(folders, tmp_path, capfd):
    own = f"--model.backbone=hf:{folders['resnet']}"
    trained(tmp_path, tmp_path / "run", own, "--trainer.max_epochs=1", "--trainer.limit_val_batches=0")
    more = (f"--model.backbone=hf:{folders['convnext']}", "--ckpt_path=last")
    assert main(["fit", *small("keypoints", tmp_path, tmp_path / "run", *more)]) == 1
    assert "model: backbone of the checkpoint is" in capfd.readouterr().err
    assert (
        main(
            ["fit", *small("keypoints", tmp_path, tmp_path / "run", own, "--model.feature_level=2", "--ckpt_path=last")]
        )
        == 1
    )
    assert "model: feature_level of the checkpoint is None, got 2" in capfd.readouterr().err


@pytest.mark.parametrize("task", ["coco", "mpii", "mtfl", "h36m"])
def test_every_task_with_points_on_images_trains_it(folders, task, tmp_path):
    more = ["--model.stacks=null", "--objective=sampling"] if task == "mpii" else []
    path = checkpoint(task, tmp_path, f"--model.backbone=hf:{folders['convnext']}", *more)
    content = torch.load(path, weights_only=True)  # plain types alone, as predictors read it
    assert content["hyper_parameters"]["backbone_config"]["config"]["model_type"] == "convnext"


def test_objectives_of_positions_and_widths_have_it(folders):
    for objective in ("direct", "rle", "sampling_rle"):
        module = CocoPose(objective=objective, backbone=f"hf:{folders['convnext']}", head_channels=8, average="coords")
        loss = module.objective.loss(module(ours(IMAGES)), torch.ones(2, 17, 2))
        assert loss.shape == (2, 17) and loss.isfinite().all()


# ---- whole networks ----


@pytest.mark.parametrize("kind", ["vitpose", "vitpose_plus", "sapiens2"])
def test_a_whole_network_answers_as_in_transformers(folders, kind, capfd):
    module = CocoPose(backbone=f"hf:{folders[kind]}", weights_gain=10.0).eval()
    own = type(module.model.inner).from_pretrained(folders[kind]).eval()
    expert = {"dataset_index": torch.zeros(2, dtype=torch.int64)} if kind == "vitpose_plus" else {}
    with torch.no_grad():
        maps, expected = module(ours(SQUARE)), own(theirs(SQUARE), **expert).heatmaps
    torch.testing.assert_close(maps, 10 * expected, rtol=1e-4, atol=1e-4)
    assert maps.shape == (2, 17, 16, 16) and "begin anew" not in capfd.readouterr().out


def test_another_number_of_points_begins_the_last_layer_anew(folders, capfd):
    module = MpiiPose(backbone=f"hf:{folders['vitpose']}", stacks=None, objective="sampling")
    assert module(ours(SQUARE)).shape == (2, 16, 16, 16)
    assert "; 2 begin anew (head.conv.weight, head.conv.bias)" in capfd.readouterr().out
    own = transformers.VitPoseForPoseEstimation.from_pretrained(folders["vitpose"]).state_dict()
    kept = module.model.inner.state_dict()
    assert all(torch.equal(kept[key], own[key]) for key in own if not key.startswith("head.conv"))
    assert isinstance(module.model, PretrainedPose) and module.model.backbone is module.model.inner.backbone


@pytest.mark.parametrize("factor", [0, 0.5])
def test_the_backbone_of_a_whole_network(folders, factor, tmp_path):
    found = trained(tmp_path, tmp_path / "run", f"--model.backbone=hf:{folders['vitpose']}",
                    f"--model.backbone_lr_factor={factor}", "--trainer.max_epochs=1", "--data.boxes=image")  # fmt: skip
    own = transformers.VitPoseForPoseEstimation.from_pretrained(folders["vitpose"]).state_dict()
    state = {key.removeprefix("model.inner."): x for key, x in found["state_dict"].items()}
    same = {torch.equal(state[key], own[key]) for key in own if key.startswith("backbone.")}
    groups = {group["part"]: group["lr"] for group in found["optimizer_states"][0]["param_groups"]}
    assert same == {factor == 0}
    assert groups == {"": pytest.approx(1e-3)} | ({"model.inner.backbone": pytest.approx(5e-4)} if factor else {})


# ---- what is refused ----


@pytest.mark.parametrize("options, message", [
    (dict(backbone="resnet50"), "backbone must be hf:NAME_OR_FOLDER or timm:NAME, got 'resnet50'"),
    (dict(backbone="hf:"), "backbone must be hf:NAME_OR_FOLDER or timm:NAME, got 'hf:'"),
    (dict(backbone="hf:./no/such/folder"), "backbone hf:./no/such/folder cannot be read: "),
    (dict(backbone="timm:no_such_net"), "backbone timm:no_such_net cannot be read: "),
    (dict(backbone="hf:{resnet}", feature_level=5), "feature_level of hf:.* must be one of 0 stem, 1 stage1, .*, got 5"),
    (dict(backbone="hf:{vitpose}", feature_level=1), "feature_level: hf:.* is a whole network with its own head, got 1"),
    (dict(backbone="hf:{vitpose}", objective="rle", average="coords"), "is a whole network of flat maps"),
    (dict(feature_level=1), "feature_level and backbone_config need a backbone"),
    (dict(backbone_lr_factor=-1.0), "backbone_lr_factor must be >= 0, got -1"),
])  # fmt: skip
def test_what_is_refused(folders, options, message):
    options = {key: x.format(**folders) if key == "backbone" else x for key, x in options.items()}
    with pytest.raises(ValueError, match=f"^model: {message}|^model: backbone hf:.*{message}"):
        CocoPose(**options)


def test_networks_that_do_not_fit_a_task(folders):
    with pytest.raises(ValueError, match="model: hourglasses have no backbone; stacks null has one"):
        MpiiPose(backbone=f"hf:{folders['convnext']}")
    with pytest.raises(ValueError, match="model: hourglasses have no backbone; stacks null has one"):
        MpiiPose(backbone_lr_factor=0.5)
    with pytest.raises(ValueError, match="is a whole network of flat maps"):
        H36mPose(backbone=f"hf:{folders['vitpose']}")
    module = CocoPose(backbone=f"hf:{folders['vitpose']}")
    with pytest.raises(
        ValueError, match=r"takes images of 64x64 pixels alone \(--data.image_size=\[64,64\]\), got 96x64"
    ):
        module(ours(IMAGES))


def test_files_without_weights_of_the_network(folders, tmp_path):
    folder = shutil.copytree(folders["convnext"], tmp_path / "mixed")
    shutil.copy(folders["dinov2"] / "model.safetensors", folder)
    with pytest.raises(ValueError, match="its files have no weights of ConvNextBackbone"):
        CocoPose(backbone=f"hf:{folder}")


@pytest.mark.parametrize("task", ["oct", "associative", "keypointnet"])
def test_tasks_without_a_backbone_refuse_the_option(task, tmp_path, capfd):
    with pytest.raises(SystemExit):
        main(["fit", *small(task, tmp_path, tmp_path / "run", "--model.backbone=hf:a")])
    assert "model.backbone" in capfd.readouterr().err


@pytest.mark.parametrize("kind, package", [("hf", "transformers"), ("timm", "timm")])
def test_a_missing_extra_says_what_to_install(kind, package, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["fit", *small("keypoints", tmp_path, tmp_path / "run", f"--model.backbone={kind}:net")]) == 1
    assert f"run: pip install 'sampling-argmax-cuda[{kind}]'" in capfd.readouterr().err
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"pip install 'sampling-argmax-cuda[{kind}]'")):
        describe(f"{kind}:net")


# ---- the page ----

NAMES = {
    "facebook/dinov2-small": "dinov2",
    "facebook/convnext-tiny-224": "convnext",
    "usyd-community/vitpose-base-simple": "vitpose",
}
SMALL = ["--trainer.max_epochs=1", "--trainer.limit_val_batches=0", "--trainer.logger=false", "--objective.num_samples=2",
         "--data.batch_size=4", "--data.num_workers=0", "--model.head_channels=8", "--data.image_size=[64,64]",
         "--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false",
         "--trainer.enable_model_summary=false"]  # fmt: skip


def commands() -> list[list[str]]:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)).replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line.startswith("sampling-argmax ")]


def test_every_command_of_the_page(folders, tmp_path, monkeypatch):
    """Its names stand for folders here, and timm's weights, which nobody can fetch, for random ones."""
    monkeypatch.chdir(tmp_path)
    for name, kind in NAMES.items():
        shutil.copytree(folders[kind], name)
    write_synthetic_keypoints("my-data", 8, 4, image_size=96)
    write_synthetic_coco("my-coco", 8, 4, image_size=96)
    made = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **more: made(name.partition(".")[0], False, **more)
    )
    found = commands()
    assert len(found) == 4 and {name for name in NAMES if any(f"hf:{name}" in argv for argv in found)} == NAMES.keys()
    for argv in found:
        assert main([*argv, *SMALL]) == 0, argv


def test_options_of_the_page_exist():
    known = {f"--model.{name}" for name in CocoPose().hparams} | {"--data.image_size", "--data.root"}
    assert set(re.findall(r"--(?:model|data)\.\w+", PAGE)) <= known
