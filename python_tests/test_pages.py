"""Every command and every line of Python of README, docs/ and the other pages is run at smoke size, or parsed as it stands."""

import re
import shutil
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest
import yaml
from labelling import TOOLS, write_deeplabcut
from pages import PAGES, PROGRAMS, ROOT, blocks, commands, mentioned, python_of
from runs import logged

from sampling_argmax_cuda.__main__ import COMMANDS, main
from sampling_argmax_cuda.commands.configs import config_path
from sampling_argmax_cuda.tasks.coco.synthetic import write_synthetic_coco
from sampling_argmax_cuda.tasks.keypoints.synthetic import write_synthetic_keypoints

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

# ---- every command of every page is one that there is, with options that there are ----

STANDING = [(page, words) for page, text in PAGES.items() for words in commands(text)]
MENTIONED = [(page, words) for page, text in PAGES.items() for words in mentioned(text)]
OF_TRAINERS = {name for name, file in COMMANDS.items() if file in ("fit", "calibrate")}
CHOOSING = ("--config", "--objective", "--task")


@cache
def said(*argv: str) -> str:
    """What the command prints before it stops with status 0."""
    with redirect_stdout(StringIO()) as printed, pytest.raises(SystemExit) as stop:
        main(list(argv))
    assert stop.value.code == 0, argv
    return printed.getvalue()


def given(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def known(text: str) -> set[str]:
    return set(re.findall(r"--[A-Za-z][\w.-]*", text))


def choices(words: list[str]) -> list[str]:
    """The words that decide which options there are; a checkpoint's task is the one that most pages have, without them."""
    values = {index: words[index + 1 : index + 2] for index, word in enumerate(words) if word in CHOOSING}
    chosen = [item for index, value in values.items() for item in (words[index], *value)]
    chosen += [word for word in words if word.partition("=")[0] in CHOOSING and "=" in word]
    task = any(word.startswith(("--config", "--task")) for word in chosen)
    return [word for word in chosen if word != "NAME"] if task else ["--config", "coco", *chosen]


def options_of_a_command(words: list[str]) -> set[str]:
    """All that ``sampling-argmax``'s help says of a command, and of ``fit`` what a study hands on."""
    command, chosen = words[0], choices(words[1:])
    if command == "doctor":
        return set()
    if command in OF_TRAINERS:
        return known(said(command, *chosen, "--help_all")) | {"--help", "--help_all", *CHOOSING}
    return known(said(command, "--help")) | (known(said("fit", *chosen, "--help_all")) if command == "study" else set())


def check_program(words: list[str]) -> None:
    """A command of one of the programs, with options that it has."""
    program, *rest = words
    if program == "sampling-argmax":
        assert rest[0] in COMMANDS and given(rest) <= options_of_a_command(rest), words
    elif program == "make":
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in rest)
    elif program == "pip":
        table = (
            (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
        )
        extras = {name for found in re.findall(r"\[(.*?)\]", " ".join(rest)) for name in found.split(",")}
        assert rest[0] == "install" and extras <= set(re.findall(r"^(\w+) = \[", table, re.M))
        assert {re.sub(r"\[.*", "", word) for word in rest[1:] if not word.startswith("-")} <= {
            ".",
            "sampling-argmax-cuda",
        }
    elif rest[0] == "-m":
        module = import_module(rest[1])
        if given(rest[2:]):
            with redirect_stdout(StringIO()) as printed, pytest.raises(SystemExit):
                module.main(["--help"])
            assert given(rest[2:]) <= known(printed.getvalue())
    else:
        assert given(rest) <= known((ROOT / rest[0]).read_text())


@pytest.mark.parametrize(
    "page, words", [*STANDING, *MENTIONED], ids=lambda x: x if isinstance(x, str) else " ".join(x)[:50]
)
def test_every_command_is_one_that_there_is(page, words):
    assert words[0] in PROGRAMS, f"{page}: say in check_program how {words[0]} is checked"
    check_program(words)
    if (page, words) in STANDING and words[:2] == ["sampling-argmax", "fit"]:
        said(*words[1:], "--print_config")  # its values are understood, too


def test_no_block_hides_from_these_tests():
    """A block says its language, and one without has no commands."""
    for page, text in PAGES.items():
        assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(blocks(text)), page
        for language, content in blocks(text):
            assert language in ("sh", "python", "yaml", "text", ""), f"{page}: {language}"
            words = [line.split()[:1] for line in content.splitlines()]
            assert language in ("sh", "text") or not any(word and word[0] in PROGRAMS for word in words), page
    assert len(STANDING) > 30 and len(MENTIONED) > 15


# ---- commands that are run, in a page's order, in one folder ----

TRAINER = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false",
           "--trainer.enable_model_summary=false"]  # fmt: skip
DATA = ["--data.synthetic=true", "--data.synthetic_train=8", "--data.synthetic_val=4", "--data.image_size=[64,64]",
        "--data.batch_size=4", "--data.num_workers=0"]  # fmt: skip
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
FIT = ["--model.depth=18", "--model.head_channels=16", "--objective.num_samples=2"]
OWN = ["--trainer.max_epochs=1", "--model.head_channels=16", "--objective.num_samples=2", "--data.batch_size=4",
       "--data.image_size=[64,64]"]  # fmt: skip
RUN_ELSEWHERE = {
    "calibrate",
    "convert",
    "export",
    "demo",
    "doctor",
}  # test_calibration, below, test_export, test_demo, ...


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


def test_the_commands_of_the_tasks(tmp_path, monkeypatch, capfd):
    """Those of docs/tasks.md and docs/training.md; keypoints, which has no synthetic data of coco's layout, is run below."""
    monkeypatch.chdir(tmp_path)
    write_synthetic_coco("images", 1, 2, image_size=96)
    Path("images/val2017").rename("photos")
    found = [
        argv for page in ("tasks", "training") for argv in commands(PAGES[f"docs/{page}.md"], of="sampling-argmax")
    ]
    assert len(found) == 14 and {argv[0] for argv in found} == set(COMMANDS) - RUN_ELSEWHERE
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


def test_the_commands_of_own_data(tmp_path, monkeypatch, capfd):
    """On drawn tools in the folder that the page names; the README has the first of them."""
    monkeypatch.chdir(tmp_path)
    page = PAGES["docs/own_data.md"]
    write_synthetic_keypoints("my-data", 8, 4, image_size=96)
    (file,) = (content for language, content in blocks(page) if language == "yaml")
    Path("points.yaml").write_text(file)
    found = [argv for argv in commands(page, of="sampling-argmax") if argv[-1] != "--trainer.accelerator=cpu"]
    assert [argv[0] for argv in found][:5] == ["convert", "fit", "fit", "validate", "fit"]
    assert found[1] in commands(PAGES["README.md"], of="sampling-argmax")
    Path("my-data").rename("drawn")
    write_deeplabcut(Path("my-project"), TOOLS)
    assert main(found[0]) == 0
    shutil.rmtree("my-data")
    Path("drawn").rename("my-data")
    for argv in found[1:5]:
        assert main([*argv, *TRAINER, "--data.num_workers=0", *(OWN if argv[0] == "fit" else [])]) == 0, argv
    printed = capfd.readouterr().out
    assert (
        "training has 7 of these images, validation 1" in printed
        and printed.count("mirrored pairs: jaw_left | jaw_right") == 3
    )
    assert "wrote 4 results to" in printed and len(list(Path("runs").rglob("points.csv"))) == 4
    assert logged(Path("runs"))["val/nme"]


# ---- Python ----

# Their blocks are run there.
WITH_FILES = {
    "docs/deploy.md": "test_export.py",
    "docs/first_example.md": "test_site.py",
    "docs/drop_in.md": "test_drop_in.py",
}
PASTED = [page for page, text in PAGES.items() if python_of(text) and page not in WITH_FILES]


@pytest.mark.parametrize("page", PASTED)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """Block after block in one module, as a reader pastes them."""
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in python_of(PAGES[page]):
        exec(compile(block, page, "exec"), names)
    if page == "README.md":
        assert names["loss"].isfinite() and names["position"].shape == (8, 17, 2)
        assert names["covariance"].shape == (8, 17, 2, 2) and names["network"].weight.grad.abs().max() > 0
        assert len(python_of(PAGES[page])) == 1 and len(python_of(PAGES[page])[0].split("\n\n")[1].splitlines()) <= 10
    if page == "docs/ops.md":
        assert names["draws"].shape == (32, 17, 30, 2) and names["position"].shape == (32, 17, 2)
        assert names["loss"].isfinite() and names["other"].shape == (32, 17)


def test_code_that_needs_files_is_run_by_a_test_of_its_own():
    for page, test in WITH_FILES.items():
        assert python_of(PAGES[page]) and Path(page).stem in (Path(__file__).parent / test).read_text()
    assert {"README.md", "docs/ops.md"} <= set(PASTED)


# ---- names ----

DOCUMENTED = "\n".join(PAGES.values())
CONFIGS = sorted(path for path in Path(config_path("coco")).parent.rglob("*.yaml") if path.parent.name != "points")
# The task that a config without one is made for, if it is not coco.
BEHIND = {"adversarial": "mpii", "synthetic_mpii": "mpii", "synthetic_associative": "associative", "synthetic_oct": "oct",
          "synthetic_keypointnet": "keypointnet", "synthetic_skeleton": "skeleton"}  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_has_options_of_its_task(path):
    content = yaml.safe_load(path.read_text())
    task = content.get("task", BEHIND.get(path.stem, "coco"))
    # Options of an objective that a config does not name hold where it is chosen.
    chosen = ["--objective=sampling"] if "name" not in content.get("objective", {"name": None}) else []
    understood = yaml.safe_load(said("fit", "--config", task, "--config", path.stem, *chosen, "--print_config"))
    for part in ("objective", "adversary", "model", "data", "trainer"):
        for name, value in content.get(part, {}).items():
            got = understood[part][name]
            assert (list(got) if isinstance(got, tuple) else got) == value


def test_the_pages_name_every_config():
    """As a word of its own: in backticks, or behind ``--config``, where users look for it."""
    text = PAGES["docs/tasks.md"] + PAGES["docs/methods.md"]
    names = {name for pair in re.findall(r"`(\w+)`|--config (\w+)", text) for name in pair if name}
    for path in CONFIGS:
        assert path.stem in names
        assert path.read_text().startswith("# ")


def test_options_that_the_pages_name_exist():
    """Of any task; in sentences and tables, too."""
    every = set()
    for task in ("keypoints", "coco", "mpii", "associative", "oct", "keypointnet", "skeleton"):
        every |= known(said("fit", "--config", task, "--help_all"))
    for command, task in (("predict", "coco"), ("predict", "oct"), ("predict", "keypointnet"), ("calibrate", "coco")):
        every |= known(said(command, "--config", task, "--help_all"))
    named = set(re.findall(r"--((?:data|model|trainer)\.\w+)", DOCUMENTED))
    assert len(named) > 40 and {f"--{name}" for name in named} <= every


def test_every_public_name_has_its_place_in_the_api():
    import sampling_argmax_cuda

    shown = set(re.findall(r"^::: sampling_argmax_cuda\.(\w+)$", PAGES["docs/api.md"], re.M))
    assert shown == set(sampling_argmax_cuda.__all__)
