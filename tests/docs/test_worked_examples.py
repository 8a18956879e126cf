"""What docs/extend tells its readers to do can be done, and does what it says."""

from pathlib import Path

import pytest

from tests.docs.worked_examples import PageDoesNotApply, WorkedExample, follow, read_example, run
from tests.repository import ROOT

PAGES = sorted(page for page in (ROOT / "docs" / "extend").glob("*.md") if page.name != "index.md")


def _try(command: tuple[str, ...], tree: Path) -> None:
    done = run(command, tree)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_whoever_follows_the_page_gets_what_it_promises(page: Path, tmp_path: Path) -> None:
    example = read_example(page)
    follow(example, tmp_path)
    touched = [*example.new_files, *example.edits]
    _try(("ruff", "check", "--no-cache", *touched), tmp_path)
    _try(("ruff", "format", "--no-cache", "--check", *touched), tmp_path)
    assert example.commands
    for command in example.commands:
        _try(command, tmp_path)


def test_there_is_a_page_for_each_thing_that_is_meant_to_be_added_to() -> None:
    assert [page.stem for page in PAGES] == ["commit-rule", "model-family", "scheduling-policy"]


@pytest.mark.parametrize(
    "example",
    [
        WorkedExample({}, {"scheduler/compose.py": ["     NO_SUCH_POLICY = 1\n+    OTHER = 2\n"]}, ()),
        WorkedExample({}, {"scheduler/compose.py": [" \n+# everywhere\n"]}, ()),
        WorkedExample({"scheduler/compose.py": ""}, {}, ()),
    ],
    ids=["gone", "ambiguous", "taken"],
)
def test_a_page_that_no_longer_fits_the_code_is_noticed(example: WorkedExample, tmp_path: Path) -> None:
    with pytest.raises(PageDoesNotApply, match=r"scheduler/compose\.py"):
        follow(example, tmp_path)


def test_files_edits_and_commands_are_told_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '```python title="a.py"\nx = 1\n```\n```python\nnot_a_file = 1\n```\n'
        '```diff title="b.py"\n one\n+two\n@@ further down\n-three\n```\n'
        "```console\n$ .venv/bin/pytest -q \\\n    tests/x.py[all]\n2 passed\n$ curl elsewhere\n```\n"
    )
    assert read_example(page) == WorkedExample(
        {"a.py": "x = 1\n"},
        {"b.py": [" one\n+two\n", "-three\n"]},
        (("pytest", "-q", "tests/x.py[all]"),),
    )
