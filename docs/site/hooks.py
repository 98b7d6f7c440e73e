"""What mkdocs does not know of this repository: pages that lie outside docs/, files that pages link to, and Sphinx's roles.

Pages are written to be read where they lie, so their links are relative to the repository. The site has every file that a page
links to: a page of :data:`PAGES` under its name there, anything else under files/ as it is. mkdocs then checks all links.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Pages outside docs/, by their path in the repository, with their names in the site.
PAGES = {"README.md": "index.md", "reference/README.md": "equations.md", "CONTRIBUTING.md": "contributing.md",
         "CHANGELOG.md": "changelog.md", "examples/README.md": "examples.md"}  # fmt: skip
LINK = re.compile(r"(?<=\]\()([\w./-]+)(?=[#)])")
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>(?:~?\.)?([\w.]+)</code>")


def in_repository(uri: str) -> str:
    """Where the file of a site's address lies in the repository."""
    outside = {name: path for path, name in PAGES.items()}
    return outside.get(uri, uri.removeprefix("files/") if uri.startswith("files/") else f"docs/{uri}")


def in_site(path: str) -> str:
    """The address in the site of a file of the repository."""
    return PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}")


def linked(markdown: str, page: str) -> dict[str, str]:
    """The files of the repository that a page's relative links lead to, by the links."""
    found = {link: posixpath.normpath(posixpath.join(posixpath.dirname(page), link)) for link in LINK.findall(markdown)}
    return {link: path for link, path in found.items() if (ROOT / path).is_file()}


def on_files(files: Files, config) -> Files:
    """Add the pages outside docs/, and what any page links to."""
    for path, name in PAGES.items():
        if (ROOT / path).is_file():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    for page in [file for file in files if file.src_uri.endswith(".md")]:
        for path in linked(page.content_string, in_repository(page.src_uri)).values():
            if files.get_file_from_path(in_site(path)) is None:
                files.append(File.generated(config, in_site(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Turn links between files of the repository into links between files of the site."""
    here, paths = page.file.src_uri, linked(markdown, in_repository(page.file.src_uri))
    start = posixpath.dirname(here) or "."
    return LINK.sub(
        lambda link: posixpath.relpath(in_site(paths[link[1]]), start) if link[1] in paths else link[1], markdown
    )


def on_page_content(html: str, **_) -> str:
    """Docstrings name what they mean by Sphinx's roles; show the names, as links where the API page has them."""
    return ROLE.sub(r'<autoref identifier="sampling_argmax_cuda.\1" optional><code>\1</code></autoref>', html)
