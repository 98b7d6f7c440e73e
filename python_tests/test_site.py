"""docs/ as a site without a warning, and the first example: the page, its notebook and its pictures are one."""

import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
