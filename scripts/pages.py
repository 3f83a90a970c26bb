"""A hook of mkdocs: the pages of docs/ link to files of the repository beside it, which a site of docs/ alone lacks.

What is linked to is brought in under repository/: Markdown as pages whose own links are followed, everything else as it
is.  A link to a folder leads to its README.md, or to a list of its files.  A link to what is not there stays as it is,
so that `mkdocs build --strict` complains.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mkdocs.structure.files import File, Files, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = "docs"
OUTSIDE: Final = "repository"  # where the site has what is not in docs/
LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(?=[)#])")
FENCE: Final = re.compile(r"^(```.*?^```|    .*?$)", re.MULTILINE | re.DOTALL)


def place(path: str) -> str:
    """Where the site has the file or folder of the repository at `path`; folders as their page."""
    if (ROOT / path).is_dir():
        readme = f"{path}/README.md"
        path = readme if (ROOT / readme).is_file() else f"{path}/index.md"
    inside = path.removeprefix(f"{DOCS}/")
    return inside if inside != path else f"{OUTSIDE}/{path}"


def target(link: str, page: str) -> str:
    """The path in the repository that `link` on the page at `page` means."""
    return os.path.normpath(Path(page).parent / link)


def links(page: str) -> list[str]:
    """What the page at `page` of the repository links to, in the repository, where it is there."""
    found = [target(link, page) for link in LINK.findall(FENCE.sub("", (ROOT / page).read_text()))]
    return [path for path in found if not path.startswith("..") and (ROOT / path).exists()]


def reachable() -> set[str]:
    """Files and folders of the repository that docs/ leads to, docs/ included."""
    todo = [str(path.relative_to(ROOT)) for path in (ROOT / DOCS).rglob("*.md")]
    seen: set[str] = set()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if (ROOT / path).is_dir() and (ROOT / path / "README.md").is_file():
            path = f"{path}/README.md"
        if path.endswith(".md"):
            todo += links(path)
    return seen


def listing(folder: str) -> str:
    """A page for a folder that has no README.md: its files, each with the title of its page."""
    pages = sorted((ROOT / folder).glob("*.md"))
    rows = [f"* [{path.read_text().splitlines()[0].lstrip('# ')}]({path.name})" for path in pages]
    others = [path.name for path in sorted((ROOT / folder).iterdir()) if path.is_file() and path.suffix != ".md"]
    rows += [f"* `{name}`" for name in others if not name.startswith(".")]
    return "\n".join([f"# {folder.removeprefix(DOCS + '/')}/", "", *rows, ""])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what docs/ leads to and does not hold."""
    for path in sorted(reachable()):
        where = place(path)
        if files.get_file_from_path(where) is not None:
            continue
        level = InclusionLevel.NOT_IN_NAV
        source = ROOT / path
        if source.is_dir() and where.endswith("/README.md"):
            source /= "README.md"
        if source.is_dir():
            files.append(File.generated(config, where, content=listing(path), inclusion=level))
        elif source.suffix == ".md":
            files.append(File.generated(config, where, content=source.read_text(), inclusion=level))
        else:
            files.append(File.generated(config, where, content=source.read_bytes(), inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of one page into those of the site."""
    uri = page.file.src_uri
    own = uri.removeprefix(f"{OUTSIDE}/") if uri.startswith(f"{OUTSIDE}/") else f"{DOCS}/{uri}"

    def site(match: re.Match[str]) -> str:
        path = target(match[1], own)
        if path.startswith("..") or not (ROOT / path).exists():
            return match[1]
        return os.path.relpath(place(path), Path(uri).parent)

    pieces = FENCE.split(markdown)  # text, block, text, ...
    return "".join(piece if at % 2 else LINK.sub(site, piece) for at, piece in enumerate(pieces))
