"""A hook of mkdocs: what the pages link to outside docs/ becomes part of the site, under source/.

The pages are read in the repository too, where such links are relative paths (../demo/README.md). A Markdown
file becomes a page whose own links are followed likewise, any other file a page that shows its text, and a
folder a page that names what is in it. Nothing is fetched from anywhere.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS, SHOWN = "docs", "source"
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds a page for everything outside docs/ that a page links to, and what those link to in turn."""
    pages = list(files.documentation_pages())
    while pages:
        page = pages.pop()
        folder = posixpath.dirname(_origin(page.src_uri))
        for outside in _outside(page.content_string, folder):
            if files.get_file_from_path(_shown_as(outside)) is None:
                shown = File.generated(
                    config, _shown_as(outside), content=_content(outside), inclusion=InclusionLevel.NOT_IN_NAV
                )
                files.append(shown)
                pages += [shown] if outside.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Points links that leave docs/ at what stands for their targets."""
    here = page.file.src_uri
    origin = _origin(here)

    def point(found: re.Match[str]) -> str:
        before, target, anchor, after = found.groups(default="")
        path = _resolved(target, posixpath.dirname(origin))
        if path is None:
            return found[0]
        return before + posixpath.relpath(_uri_of(path), posixpath.dirname(here) or ".") + anchor + after

    return LINK.sub(point, markdown)


def _origin(uri: str) -> str:
    """The file of the repository that a page of the site shows."""
    return uri.removeprefix(f"{SHOWN}/") if uri.startswith(f"{SHOWN}/") else f"{DOCS}/{uri}"


def _outside(markdown: str, folder: str) -> Iterator[str]:
    """Paths of the repository, not under docs/, that a page links to."""
    for found in LINK.finditer(markdown):
        path = _resolved(found[2], folder)
        if path is not None and not path.startswith(f"{DOCS}/"):
            yield path


def _resolved(target: str, folder: str) -> str | None:
    """Where a relative link leads, by its path in the repository; None: to nothing that is there."""
    path = posixpath.normpath(posixpath.join(folder, target))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def _uri_of(path: str) -> str:
    """The page of the site that stands for a file or a folder of the repository."""
    if not path.startswith(f"{DOCS}/"):
        return _shown_as(path)
    inside = path.removeprefix(f"{DOCS}/")
    return f"{inside}/index.md" if (ROOT / path).is_dir() else inside


def _shown_as(path: str) -> str:
    if (ROOT / path).is_dir():
        return f"{SHOWN}/{path}/index.md"
    return f"{SHOWN}/{path}" if path.endswith(".md") else f"{SHOWN}/{path}.md"


def _content(path: str) -> str:
    file = ROOT / path
    if file.is_dir():
        names = sorted(one.name + "/" * one.is_dir() for one in file.iterdir() if one.name[0] not in "._")
        return f"{UNSEARCHED}# {path}/\n\n" + "".join(f"- `{name}`\n" for name in names)
    text = file.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return UNSEARCHED + text
    return f"{UNSEARCHED}# {path}\n\n`````{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n`````\n"
