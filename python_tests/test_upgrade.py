"""Checkpoints, options and configs of version 0.1.0: the first go on as they were, the others stop with their new names."""

import shutil
from pathlib import Path

import pytest
import torch
from runs import logged

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.commands.configs import RENAMED_CONFIGS, RENAMED_OPTIONS, config_path
from sampling_argmax_cuda.commands.tasks import TASKS
from sampling_argmax_cuda.objectives import OBJECTIVES, options_of
from sampling_argmax_cuda.trainers.upgrade import ADVERSARY, DATA, OLD_OPTIONS, upgrade
from sampling_argmax_cuda.trainers.weights import read_checkpoint

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

# Made by version 0.1.0: one epoch of two steps of SGD on synthetic people, and what its second epoch gave there.
OLD = Path(__file__).parent / "checkpoints"
KINDS = {
    "sampling": (["--config", "triangular", "--objective.num_samples=4", "--objective.tau=coco"],
                 {"train/loss_epoch": 8.780254364013672, "val/error": 3.292327404022217, "tau": 1.94}),
    "adversary": (["--config", "adversarial", "--adversary.stacks=1", "--adversary.channels=8"],
                  {"train/loss_epoch": 0.46028000116348267, "val/error": 4.709007740020752,
                   "train/fake": 0.4353259205818176, "train/real": 0.24400849640369415, "train/k": 0.0}),
}  # fmt: skip
SMALL = ["--data.synthetic=true", "--data.num_workers=0", "--data.image_size=[64,64]", "--data.synthetic_train=16",
         "--data.synthetic_val=4", "--data.batch_size=8", "--trainer.accelerator=cpu", "--trainer.devices=1",
         "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_the_version_before_goes_on(kind, tmp_path):
    """Its next epoch is that of the old version: weights, momentum, temperature, the balance and the noise of the step."""
    more, expected = KINDS[kind]
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(OLD / f"mpii_{kind}_0.1.0.ckpt", folder / "last.ckpt")
    network = [
        "--model.stacks=1",
        "--model.channels=8",
        "--model.norm=group",
        "--model.optimizer=sgd",
        "--model.lr=0.01",
    ]
    given = [f"--data.root={tmp_path / 'data'}", f"--trainer.default_root_dir={tmp_path / 'run'}", *SMALL, *network]
    assert main(["fit", "--config", "mpii", *more, *given, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 0
    found = logged(tmp_path / "run")
    assert {name: found[name][-1] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_checkpoint_of_the_version_before_says_all_of_itself(tmp_path, capfd):
    """Nothing else need be said to evaluate it: its task, its objective and its network."""
    path = OLD / "mpii_sampling_0.1.0.ckpt"
    root = [f"--data.root={tmp_path / 'data'}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert main(["validate", f"--ckpt_path={path}", *root, *SMALL]) == 0
    assert "instead of the checkpoint's" not in capfd.readouterr().out
    assert logged(tmp_path / "run")["val/error"][0] > 0
    options = read_checkpoint(path)["hyper_parameters"]
    assert options["objective"]["name"] == "sampling" and options["objective"]["num_samples"] == 4
    assert not {"method", "tau", "adversary_lr"} & options.keys()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_old_options_become_those_of_their_objective(name):
    """Each has the value of the old one of the same meaning; other objectives' options are gone; twice is once."""
    old = {**{key: f"old {key}" for key in OLD_OPTIONS}, "method": name, "lr": 0.1,
           **{key: None for key in ADVERSARY.values()}}  # fmt: skip
    checkpoint = {"hyper_parameters": old, "datamodule_hyper_parameters": {key: f"old {key}" for key in DATA},
                  "state_dict": {"method.likelihood.x": torch.zeros(1), "model.y": torch.ones(1)}}  # fmt: skip
    for _ in range(2):
        upgrade(checkpoint)
        new, options = {new: old for old, new in OLD_OPTIONS.items()}, checkpoint["hyper_parameters"]
        own = {key: f"old {new[key]}" if key in new else value for key, value in options_of(name).items()}
        assert options == {"lr": 0.1, "objective": {"name": name, **own}, "adversary": None}
        assert checkpoint["datamodule_hyper_parameters"] == {new: f"old {old}" for old, new in DATA.items()}
        assert checkpoint["state_dict"].keys() == {"objective.likelihood.x", "model.y"}


@pytest.mark.parametrize("option", RENAMED_OPTIONS)
def test_an_old_option_stops_with_its_new_name(option, tmp_path, capfd):
    """On the command line and in a config alike; an associative embedding keeps its own width of Gaussians."""
    task = "associative" if option.startswith("model.adversary") else "keypointnet" if "clouds" in option else "mpii"
    part, _, name = option.partition(".")
    (tmp_path / "own.yaml").write_text(f"{part}:\n  {name}: 1\n")
    for given in ([f"--{option}=1"], [f"--{option}", "1"], ["--config", str(tmp_path / "own.yaml")]):
        assert main(["fit", "--config", task, *given]) == 1
        assert f"--{option}: this option is now called --{RENAMED_OPTIONS[option]}" in capfd.readouterr().err
    assert "target_sigma" not in TASKS["mpii"][0](stacks=1, channels=8, objective="heatmap").hparams


@pytest.mark.parametrize("name", RENAMED_CONFIGS)
def test_an_old_config_stops_with_its_new_name(name, capfd):
    assert main(["fit", "--config", name]) == 1
    assert f"--config {name}: this config is now called {RENAMED_CONFIGS[name]}" in capfd.readouterr().err
    assert Path(config_path(RENAMED_CONFIGS[name])).is_file()
