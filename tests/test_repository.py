"""What the repository promises about itself: names, sizes, links, and that it hides nobody's package."""

import os
import subprocess
import sys
from importlib.machinery import PathFinder

import pytest

from tests.repository import PACKAGES, ROOT, SourceFile, source_files

MAX_FILE_LINES = 300
MAX_MODEL_LINES = 400  # models and attention, which read better whole
MAX_FUNCTION_LINES = 50


def _line_limit(file: SourceFile) -> int:
    model = file.path.parts[:2] == ("worker", "models") or "attention" in file.path.name
    return MAX_MODEL_LINES if model and file.package != "tests" else MAX_FILE_LINES


def test_no_file_outgrows_its_limit() -> None:
    lengths = {str(file.path): (file.text.count("\n"), _line_limit(file)) for file in source_files()}
    assert {path: length for path, length in lengths.items() if length[0] > length[1]} == {}


def test_no_function_outgrows_its_limit() -> None:
    lengths = {
        f"{file.path}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for file in source_files()
        for function in file.functions()
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_every_package_is_imported_as_part_of_easel() -> None:
    bare = [
        f"{file.path}:{line} imports {module}"
        for file in source_files()
        for line, module in file.imports()
        if module.lstrip(".").split(".")[0] in PACKAGES or module.startswith(".")
    ]
    assert bare == []


def test_every_folder_of_modules_is_a_regular_package() -> None:
    folders = {file.path.parent for file in source_files() if file.package in PACKAGES}
    assert [folder for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_static_tools_find_each_package_through_its_link(package: str) -> None:
    link = ROOT / ".src" / "easel" / package
    assert link.is_symlink()
    assert not os.path.isabs(os.readlink(link))
    assert link.resolve() == ROOT / package


def test_nothing_but_the_packages_is_linked() -> None:
    assert {link.name for link in (ROOT / ".src" / "easel").iterdir()} == set(PACKAGES)


def test_no_folder_is_importable_by_its_bare_name() -> None:
    """Otherwise start Python with PYTHONSAFEPATH=1, as `make test` does."""
    assert [name for name in (*PACKAGES, "tests") if _stands_at_the_root(name)] == []


def _stands_at_the_root(name: str) -> bool:
    spec = PathFinder.find_spec(name)
    return spec is not None and str(ROOT / name) in map(str, spec.submodule_search_locations or ())


def test_transformers_does_not_take_our_kernels_for_its_own() -> None:
    script = (
        "from transformers.utils import import_utils\n"
        "import transformers.integrations.hub_kernels\n"
        "import easel.kernels, sys\n"
        "import_utils.is_kernels_available()\n"
        "print(getattr(sys.modules.get('kernels'), '__file__', None))\n"
    )
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert str(ROOT / "kernels") not in done.stdout


def test_the_tree_names_every_module() -> None:
    tree = (ROOT / "docs" / "tree.md").read_text(encoding="utf-8").split("```")[1]
    named: set[str] = set()
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0] if line.split() else ""
        if not line.startswith(" "):
            folder = name
        elif name.endswith(".py"):
            named.add(folder + name)
    there = {str(file.path) for file in source_files() if file.path.name != "__init__.py"}
    assert {name for name in named if not name.startswith("docs/")} == there


def test_the_readme_names_every_folder() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1]
    folders = {line.split()[0].rstrip("/") for line in tree.splitlines() if line}
    assert folders == {*PACKAGES, "deploy", "docs", "tests"}
