"""docs/models.md says what the code does."""

import re

import pytest

from easel.bench.sizes import BEGIN, END, rewritten
from easel.worker.families import FAMILIES, Family
from easel.worker.presets import preset_names
from tests.repository import ROOT

TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """The first table below a heading, without the line under its head."""
    lines = TEXT.split(f"## {title}\n")[1].split("\n## ")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [table[0], *table[2:]]


def test_the_size_table_is_what_the_code_makes_of_it() -> None:
    assert rewritten(TEXT) == TEXT, "python -m easel.bench.sizes"


def test_every_preset_is_in_the_size_table() -> None:
    table = TEXT.split(BEGIN)[1].split(END)[0]
    assert [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]] == list(preset_names())


@pytest.mark.parametrize("family", FAMILIES.values(), ids=[family.name for family in FAMILIES.values()])
def test_the_options_of_each_family_are_listed(family: Family) -> None:
    head, *body = rows("Options of a request")
    (column,) = (index for index, names in enumerate(head) if family.name in names.split(", "))
    listed = {name for row in body if row[column] == "✓" for name in re.findall(r"`(\w+)`", row[0])}
    assert listed == family.options


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_architecture_is_listed_with_its_block(architecture: str) -> None:
    family = FAMILIES[architecture]
    (row,) = (row for row in rows("Families") if row[1] == f"`{architecture}`")
    assert (row[0], row[3]) == (family.name, str(family.block_length))
