"""The pages that users read, and what their blocks tell a reader to type."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "reference/README.md")),
         *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]  # fmt: skip
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in FILES}
PROGRAMS = ("sampling-argmax", "make", "python", "pip")


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.S | re.M)


def python_of(text: str) -> list[str]:
    """The blocks of Python, in order."""
    return [content for language, content in blocks(text) if language == "python"]


def typed(line: str) -> list[str]:
    """The words of a line of a shell, without comment and without variables set before the command."""
    words = shlex.split(line, comments=True)
    return words[next((i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), 0) :]


def commands(text: str, *, of: str | None = None) -> list[list[str]]:
    """The commands of the blocks of ``sh``, a line each; ``of`` a program, without its name."""
    lines = [line for language, content in blocks(text) if language == "sh"
             for line in content.replace("\\\n", " ").splitlines()]  # fmt: skip
    found = [words for line in lines if (words := typed(line))]
    return found if of is None else [words[1:] for words in found if words[0] == of]


def mentioned(text: str) -> list[list[str]]:
    """Whole commands within sentences and tables; one with an ellipsis is none."""
    without = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.S | re.M)
    quoted = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", without)]
    return [typed(line) for line in quoted if line.partition(" ")[0] in PROGRAMS and " " in line and "..." not in line]
