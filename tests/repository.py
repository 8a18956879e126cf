"""The repository's own source files, for the tests that read them."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bench", "cluster", "demo", "kernels", "scheduler", "worker")


@dataclass(frozen=True, slots=True)
class SourceFile:
    path: Path  # relative to the root
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.parts[0]

    @property
    def module(self) -> str:
        """The name it is imported by: easel.worker for worker/__init__.py."""
        parts = self.path.with_suffix("").parts
        return ".".join(("easel", *(parts[:-1] if parts[-1] == "__init__" else parts)))

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, module) of each import, wherever it stands; `from a import b` yields a and a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                yield node.lineno, module
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


@cache
def source_files() -> tuple[SourceFile, ...]:
    """Every Python file of the packages and the tests."""
    paths = sorted(path for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*.py"))
    return tuple(_read(path) for path in paths)


def _read(path: Path) -> SourceFile:
    text = path.read_text(encoding="utf-8")
    return SourceFile(path.relative_to(ROOT), text, ast.parse(text, str(path)))
