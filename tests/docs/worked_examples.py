"""The pages that say how to extend Easel, done: their files written, their edits made, their commands run.

A page holds new files and edits as code blocks that carry the file's name, and commands behind a dollar sign:

    ```python title="worker/models/new.py"        a new file
    ```diff title="scheduler/request.py"          hunks, one below the other, `@@` between them
    ```console                                    lines that begin with `$ .venv/bin/` are run
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.repository import ROOT

COPIED = ("bench", "cluster", "kernels", "scheduler", "tests", "worker")
LINKED = ("demo",)  # it is large; no page edits it
_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ \.venv/bin/(.+)$", re.MULTILINE)


class PageDoesNotApply(Exception):
    """An edit of a page no longer fits the file that it is of."""


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """What a page asks its reader to do. Paths are relative to the repository's root."""

    new_files: dict[str, str]
    edits: dict[str, list[str]]  # hunks
    commands: tuple[tuple[str, ...], ...]


def read_example(page: Path) -> WorkedExample:
    """The example of a page of docs/extend."""
    files: dict[str, str] = {}
    edits: dict[str, list[str]] = {}
    commands: list[tuple[str, ...]] = []
    for language, title, body in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "console":
            whole_lines = body.replace("\\\n", " ")
            commands += [tuple(shlex.split(command)) for command in _COMMAND.findall(whole_lines)]
        elif language == "diff":
            edits.setdefault(title, []).extend(re.split(r"^@@.*\n", body, flags=re.MULTILINE))
        elif title:
            files[title] = body
    return WorkedExample(files, edits, tuple(commands))


def follow(example: WorkedExample, tree: Path) -> None:
    """Makes `tree` a copy of the repository's code in which everything the page says is done.

    Raises PageDoesNotApply.
    """
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for folder in LINKED:
        (tree / folder).symlink_to(ROOT / folder)
    shutil.copytree(ROOT / ".src", tree / ".src", symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name, text in example.new_files.items():
        if (tree / name).exists():
            raise PageDoesNotApply(f"{name} is there already")
        (tree / name).write_text(text, encoding="utf-8")
    for name, hunks in example.edits.items():
        text = (tree / name).read_text(encoding="utf-8")
        for hunk in hunks:
            text = _edited(text, hunk, name)
        (tree / name).write_text(text, encoding="utf-8")


def _edited(text: str, hunk: str, name: str) -> str:
    """Context and removed lines have to be there exactly once."""
    old, new = ("".join(_lines(hunk, marks)) for marks in (" -", " +"))
    if text.count(old) != 1:
        raise PageDoesNotApply(f"{name} holds {text.count(old)} times, instead of once:\n{old}")
    return text.replace(old, new)


def _lines(hunk: str, marks: str) -> Iterator[str]:
    for line in hunk.splitlines(keepends=True):
        if line.strip() == "":
            yield "\n"
        elif line[0] in marks:
            yield line[1:]


def run(command: tuple[str, ...], tree: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of a page in the tree, whose modules stand before the installed ones."""
    program = Path(sys.executable).with_name(command[0])
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = outer | {
        "PYTHONPATH": str(tree / ".src"),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [str(program), *command[1:]], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
