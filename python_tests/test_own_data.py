"""Every command of docs/own_data.md runs, in the page's order, on drawn tools in the folder that it names."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from labelling import TOOLS, write_deeplabcut
from runs import logged

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.tasks.keypoints.synthetic import write_synthetic_keypoints

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

PAGE = (Path(__file__).parents[1] / "docs" / "own_data.md").read_text()
TRAINER = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false",
           "--trainer.enable_model_summary=false", "--data.num_workers=0"]  # fmt: skip
FIT = [
    "--trainer.max_epochs=1",
    "--model.head_channels=16",
    "--objective.num_samples=2",
    "--data.batch_size=4",
    "--data.image_size=[64,64]",
]


def commands() -> list[list[str]]:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("sampling-argmax ")]


def test_every_command_of_the_page(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_synthetic_keypoints("my-data", 8, 4, image_size=96)
    (file,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    Path("points.yaml").write_text(file)
    found = commands()
    assert [argv[0] for argv in found][:5] == ["convert", "fit", "fit", "validate", "fit"]
    Path("my-data").rename("drawn")
    write_deeplabcut(Path("my-project"), TOOLS)
    assert main(found[0]) == 0
    shutil.rmtree("my-data")
    Path("drawn").rename("my-data")
    for argv in found[1:5]:
        assert main([*argv, *TRAINER, *(FIT if argv[0] == "fit" else [])]) == 0, argv
    said = capfd.readouterr().out
    assert (
        "training has 7 of these images, validation 1" in said
        and said.count("mirrored pairs: jaw_left | jaw_right") == 3
    )
    assert "wrote 4 results to" in said and len(list(Path("runs").rglob("points.csv"))) == 4
    assert logged(Path("runs"))["val/nme"]


def test_scores_and_options_of_the_page_exist(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "keypoints", "--help_all"])
    known = set(re.findall(r"--((?:data|model|trainer)\.\w+)", capsys.readouterr().out))
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    said, named = capsys.readouterr().out, set(re.findall(r"`--(\w+) ", PAGE))
    assert {"val", "by", "seed", "images"} <= named and all(f"--{name} " in said for name in named)
    assert {name for name in re.findall(r"--((?:data|model|trainer)\.\w+)", PAGE)} <= known
