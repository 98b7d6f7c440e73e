"""Every command of the README runs, at smoke size and in the README's order, in one folder."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from runs import logged

from sampling_argmax_cuda.__main__ import COMMANDS, main
from sampling_argmax_cuda.commands.configs import config_path
from sampling_argmax_cuda.tasks.coco.synthetic import write_synthetic_coco

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

README = (Path(__file__).parents[1] / "README.md").read_text()
DATA = ["--data.synthetic=true", "--data.synthetic_train=8", "--data.synthetic_val=4", "--data.image_size=[64,64]",
        "--data.batch_size=4", "--data.num_workers=0"]  # fmt: skip
TRAINER = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false",
           "--trainer.enable_model_summary=false"]  # fmt: skip
POINT_CLOUDS = ["--data.synthetic=true", "--data.synthetic_train=4", "--data.synthetic_val=2", "--data.points=128",
                "--data.batch_size=2", "--data.num_workers=0", "--model.centers=[32,16,8,4]", "--model.width=0.1"]  # fmt: skip
STACKS = ["--model.stacks=1", "--model.channels=8"]
# The tasks without the ResNet, or without images.
OTHER = {
    "associative": [*DATA, *STACKS, "--data.root=data/people"],  # its synthetic images have more people than coco's
    "mpii": [*DATA, *STACKS],
    "oct": ["--data.synthetic=true", "--data.synthetic_train=2", "--data.synthetic_val=1", "--data.rows=64",
            "--data.num_workers=0", "--model.width=4", "--objective.num_samples=2"],
    "keypointnet": [*POINT_CLOUDS, "--model.keypoints=10", "--objective.num_samples=2"],
    "skeleton": POINT_CLOUDS,
}  # fmt: skip
ELSEWHERE = {"calibrate", "convert", "export"}  # commands with a page of their own
FIT = ["--model.depth=18", "--model.head_channels=16", "--objective.num_samples=2"]


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("sampling-argmax ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def alone(task: str) -> list[str]:
    """A run of which no other command reads a checkpoint."""
    return ["--trainer.max_epochs=1", "--trainer.enable_checkpointing=false", f"--trainer.default_root_dir={task}"]


def smoke(argv: list[str]) -> list[str]:
    """What makes a command small; a checkpoint brings its own model."""
    if argv[0] == "study":
        return ["--epochs=1", "--seeds", "0", "--objectives", "soft", "sampling", "--forms", "paper", "--bases", "uniform",
                "--samples", "2", *DATA, *TRAINER, "--trainer.enable_checkpointing=false", "--model.depth=18",
                "--model.head_channels=16"]  # fmt: skip
    if argv[0] in ("predict", "visualize"):
        return ["--data.num_workers=0", *TRAINER]
    if argv[0] == "fit" and argv[2] in OTHER:
        return [*OTHER[argv[2]], *TRAINER, *alone(argv[2])]
    if argv[0] == "fit":
        folder = ["--trainer.max_epochs=1"] if argv[2] == "coco" and "synthetic" not in argv else alone(argv[2])
        return [*DATA, *FIT, *TRAINER, "--data.scale=0", *folder]
    return [*DATA, *TRAINER]


def test_every_command_of_the_readme(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_synthetic_coco("images", 1, 2, image_size=96)
    Path("images/val2017").rename("photos")
    found = commands()
    assert len(found) == 14 and {argv[0] for argv in found} == set(COMMANDS) - {"demo", "doctor", *ELSEWHERE}
    for argv in found:
        assert main([*argv, *smoke(argv)]) == 0, argv
    assert len(list(Path("runs").rglob("*_maps.png"))) == 2 and len(list(Path("runs").rglob("predictions.json"))) == 2
    assert logged(Path("h36m"))["val/mpjpe_mm"] and logged(Path("mtfl"))["val/abs_px"]
    assert "val/pckh" in logged(Path("mpii")) and "val/AP" in logged(Path("associative"))
    assert {path.name for path in Path("study-output").iterdir()} == {
        "data",
        "lock",
        "runs",
        "study.csv",
        "study.md",
        "study.png",
    }


def test_the_code_of_the_readme_runs():
    """Block after block in one module, as a reader pastes them."""
    blocks, names = re.findall(r"```python\n(.*?)```", README, re.S), {}
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert names["draws"].shape == (32, 17, 30, 2) and names["position"].shape == (32, 17, 2)
    assert names["loss"].isfinite() and names["other"].shape == (32, 17)


CONFIGS = sorted(path for path in Path(config_path("coco")).parent.rglob("*.yaml") if path.parent.name != "points")
# The task that a config without one is made for, if it is not coco.
BEHIND = {"adversarial": "mpii", "synthetic_mpii": "mpii", "synthetic_associative": "associative", "synthetic_oct": "oct",
          "synthetic_keypointnet": "keypointnet", "synthetic_skeleton": "skeleton"}  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_options_of_its_task(path, capfd):
    content = yaml.safe_load(path.read_text())
    task = content.get("task", BEHIND.get(path.stem, "coco"))
    # Options of an objective that a config does not name hold where it is chosen.
    chosen = ["--objective=sampling"] if "name" not in content.get("objective", {"name": None}) else []
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", task, "--config", path.stem, *chosen, "--print_config"])
    assert stop.value.code == 0
    understood = yaml.safe_load(capfd.readouterr().out)
    for part in ("objective", "adversary", "model", "data", "trainer"):
        for name, value in content.get(part, {}).items():
            got = understood[part][name]
            assert (list(got) if isinstance(got, tuple) else got) == value


def test_the_readme_names_every_config():
    """As a word of its own: in backticks, or behind ``--config``."""
    named = set(re.findall(r"`(\w+)`|--config (\w+)", README))
    names = {name for pair in named for name in pair if name}
    for path in CONFIGS:
        assert path.stem in names
        assert path.read_text().startswith("# ")
