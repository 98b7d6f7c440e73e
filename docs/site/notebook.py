"""``python docs/site/notebook.py``: run docs/first_example.md, write its outputs into it, and the same as a notebook.

The page is the source: text, blocks of Python, and after a block what it printed (a block of text) and drew (an image), which
this command writes anew. The notebook has the same text and blocks as cells.
"""

import base64
import contextlib
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib

DOCS = Path(__file__).parents[1]
PAGE, NOTEBOOK = DOCS / "first_example.md", DOCS / "first_example.ipynb"
CODE = re.compile(
    r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<printed>.*?)```\n)?(?P<drawn>(?:\n!\[.*?\]\(.*?\)\n)*)", re.S
)
ABOUT = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
         "language_info": {"name": "python"}}  # fmt: skip


@dataclass
class Cell:
    """A stretch of text, or a block of Python with what it printed and drew."""

    source: str
    code: bool
    printed: str = ""
    pictures: list[bytes] = field(default_factory=list)


def cells_of(page: str) -> list[Cell]:
    """The cells of a page, without outputs."""
    cells, end = [], 0
    for block in CODE.finditer(page):
        cells += [Cell(page[end : block.start()].strip(), False), Cell(block["code"].rstrip(), True)]
        end = block.end()
    return [cell for cell in [*cells, Cell(page[end:].strip(), False)] if cell.source]


def run(cells: list[Cell]) -> dict:
    """Run the blocks one after another and keep what they print and draw; the names that they leave."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names: dict = {}
    for cell in (cell for cell in cells if cell.code):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(cell.source, PAGE.name, "exec"), names)
        cell.printed = printed.getvalue()
        for number in pyplot.get_fignums():
            buffer = io.BytesIO()
            pyplot.figure(number).savefig(buffer, dpi=100, metadata={"Software": None})
            cell.pictures.append(buffer.getvalue())
        pyplot.close("all")
    return names


def notebook_of(cells: list[Cell]) -> dict:
    """The cells as a notebook of format 4.5."""
    return {
        "cells": [_as_json(i, cell) for i, cell in enumerate(cells)],
        "metadata": ABOUT,
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _as_json(number: int, cell: Cell) -> dict:
    shared = {"id": f"cell-{number}", "metadata": {}, "source": cell.source.splitlines(keepends=True)}
    if not cell.code:
        return {"cell_type": "markdown", **shared}
    outputs: list[dict] = []
    if cell.printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": cell.printed.splitlines(keepends=True)})
    for picture in cell.pictures:
        data = {"image/png": base64.b64encode(picture).decode(), "text/plain": ["<Figure>"]}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    return {"cell_type": "code", **shared, "execution_count": None, "outputs": outputs}


def page_of(cells: list[Cell], alts: list[str]) -> str:
    """The cells as a page, whose pictures lie in images/ and have these alternative texts."""
    parts, drawn = [], 0
    for cell in cells:
        parts.append(f"```python\n{cell.source}\n```" if cell.code else cell.source)
        if cell.printed:
            parts.append(f"```text\n{cell.printed.rstrip()}\n```")
        for _ in cell.pictures:
            drawn += 1
            parts.append(f"![{alts[drawn - 1]}](images/first_example_{drawn}.png)")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    page = PAGE.read_text()
    cells, alts = cells_of(page), re.findall(r"!\[(.*?)\]\(images/first_example_\d+\.png\)", page)
    run(cells)
    for number, picture in enumerate((picture for cell in cells for picture in cell.pictures), 1):
        (DOCS / "images" / f"first_example_{number}.png").write_bytes(picture)
    PAGE.write_text(page_of(cells, alts))
    NOTEBOOK.write_text(json.dumps(notebook_of(cells), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
