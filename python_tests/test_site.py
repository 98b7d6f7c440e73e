"""docs/ as a site without a warning; the first example, its notebook and its pictures are one; README and numbers of the pages."""

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT

from bench import plot

DOCS = ROOT / "docs"


def load_file(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


notebook = load_file(DOCS / "site" / "notebook.py")


@pytest.mark.written_memory
def test_the_first_example_runs_and_is_its_notebook():
    page, written = (DOCS / "first_example.md").read_text(), json.loads((DOCS / "first_example.ipynb").read_text())
    cells = notebook.cells_of(page)
    names = notebook.run(cells)
    assert set(names["networks"]) == {"soft-argmax", "sampling-argmax", "energy score"}
    fresh = notebook.notebook_of(cells)
    assert [cell["source"] for cell in fresh["cells"]] == [cell["source"] for cell in written["cells"]]
    kinds = [
        [[out["output_type"] for out in cell.get("outputs", [])] for cell in book["cells"]] for book in (fresh, written)
    ]
    assert kinds[0] == kinds[1]
    # What the notebook shows is what the page shows.
    outputs = [out for cell in written["cells"] for out in cell.get("outputs", [])]
    texts = ["".join(out["text"]).rstrip() for out in outputs if out["output_type"] == "stream"]
    assert texts == [text.rstrip() for text in re.findall(r"```text\n(.*?)```", page, re.S)] and texts
    pictures = [base64.b64decode(out["data"]["image/png"]) for out in outputs if out["output_type"] == "display_data"]
    files = re.findall(r"\]\((images/first_example_\d+\.png)\)", page)
    assert [(DOCS / file).read_bytes() for file in files] == pictures and len(files) == 2


def test_the_site_is_built_without_a_warning(tmp_path):
    """Links and anchors of every page, the API's docstrings, and that every page is in the navigation."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # as `make docs`: the theme's word on its own future
    found = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=300)
    assert found.returncode == 0 and "WARNING" not in found.stderr, found.stderr
    pages = {path.name for path in (tmp_path / "site").glob("*.html")}
    assert {path.with_suffix(".html").name for path in DOCS.glob("*.md")} | {"index.html", "equations.html"} <= pages
    api = (tmp_path / "site" / "api.html").read_text()
    assert 'id="sampling_argmax_cuda.sample"' in api and ":func:" not in api and ":class:" not in api


# ---- the README, and numbers ----


def test_the_readme_is_short_and_in_order():
    text = PAGES["README.md"]
    assert text.count("\n") <= 150
    parts = ["![", "](docs/images/hard_case.png)", "Soft-argmax trains", "## Install", "```python", "## What is in the box",
             "## Speed", "## Links"]  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places) and text.count("![") == 1


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_the_table_of_speed_is_that_of_the_measurements(page):
    """As ``python -m bench.plot`` prints it."""
    assert plot.table(plot.newest(ROOT / "bench" / "results" / "cpu.csv", "coco")) in PAGES[page]


def test_instructions_are_those_that_were_counted():
    """Of the forward passes with noise, at both temperatures."""
    results = json.loads((ROOT / "bench" / "results" / "cpu_instructions.json").read_text())
    counts = results["instructions per (sample, cell)"]
    for tau in ("1", "0.7"):
        for kernel in ("sample uniform", "sample triangular", "sample gaussian", "axis_sample triangular"):
            assert re.search(rf"\b{counts[f'{kernel} forward, tau {tau}']:.1f}\b", PAGES["docs/benchmarks.md"]), kernel


def test_pictures_are_small_and_shown():
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert {path.name for path in pictures} == set(
        re.findall(r"\]\((?:docs/)?images/([\w.]+)\)", "\n".join(PAGES.values()))
    )
    assert all(path.stat().st_size < 150_000 for path in pictures)
