"""The page's logic that needs no browser, by Node's own test runner."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.repository import ROOT

FOLDER = ROOT / "tests" / "cluster" / "gateway" / "web"
WEB = ROOT / "cluster" / "gateway" / "web"
MAX_LINES = 200


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.test.js")), ids=lambda file: file.name)
def test_the_modules_pass_their_own_tests(file: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: the web page's modules were NOT tested; install Node 20 or newer")
    done = subprocess.run([node, "--test", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted(WEB.glob("*.js")), ids=lambda file: file.name)
def test_modules_stay_short_and_of_this_server(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    assert "innerHTML" not in text
