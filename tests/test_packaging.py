"""The wheel is whole: built from the sources, installed elsewhere, everything in it imports."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repository import PACKAGES, ROOT, source_files

MODULES = tuple(file.module for file in source_files() if file.package in PACKAGES)


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment into which nothing but the wheel was installed."""

    folder: Path

    def run(self, *command: str) -> str:
        """What a command of this environment prints when started outside the repository."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = (str(self.folder / "bin" / command[0]), *command[1:])
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing of an earlier build is in it and none of this one is left."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The dependencies are this environment's own, lent by a .pth file: Python adds the folder to the path
    but runs no .pth file in it, so the editable install of the repository stays unseen.
    """
    folder = tmp_path_factory.mktemp("installation")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return Installation(folder)


def test_the_wheel_holds_every_module_and_all_data(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"easel/{file.path.as_posix()}" for file in source_files() if file.package in PACKAGES}
    for folder in ("demo/checkpoint", "worker/published"):
        expected |= {f"easel/{path.relative_to(ROOT)}" for path in (ROOT / folder).glob("*")}
    assert expected - names == set()


def test_the_wheel_adds_one_name_to_the_importable(wheel: Path) -> None:
    roots = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in roots if not name.endswith(".dist-info")} == {"easel"}


def test_an_installed_easel_tells_its_version(installation: Installation) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] in installation.run("easel", "--version")


def test_every_module_imports_from_the_wheel(installation: Installation) -> None:
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    print(importlib.import_module(name).__file__)\n"
    )
    printed = installation.run("python", "-c", script, *MODULES).splitlines()
    elsewhere = [line for line in printed if not Path(line).is_relative_to(installation.folder)]
    assert len(printed) == len(MODULES)
    assert elsewhere == []
