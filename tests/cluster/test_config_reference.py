"""The page of all settings says what the code says, and nothing else."""

import re
from typing import Any, Literal

import pytest
import yaml
from pydantic import ByteSize, Field

from easel.cluster.config import load_config, option_table
from easel.cluster.config_reference import configuration_page, describe_bounds, describe_type, variable_of
from easel.cluster.config_sections import TenantSection
from tests.repository import ROOT

PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_the_one_that_the_code_makes() -> None:
    """python -m easel.cluster.config_reference > docs/configuration.md"""
    assert PAGE.read_text(encoding="utf-8") == configuration_page()


def test_every_setting_is_there_once() -> None:
    listed = re.findall(r"^\| `([a-z0-9_.]+)`", configuration_page(), re.MULTILINE)
    tenants = [f"tenants.{name}" for name in TenantSection.model_fields]
    assert sorted(listed) == sorted([*(name for name, _, _ in option_table()), *tenants])


def test_every_variable_on_the_page_is_one_that_is_read() -> None:
    """A variable that is not known is refused by its name; these are refused for their values at most."""
    page = configuration_page()
    variables = set(re.findall(r"<br>`(EASEL_[A-Z0-9_]+)`", page))
    options = {variable_of(tuple(name.split("."))) for name, _, _ in option_table()}
    assert variables == options - {"EASEL_TENANTS"}


def test_the_example_is_a_configuration() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", configuration_page(), re.DOTALL)
    config = load_config(settings=yaml.safe_load(example), environment={"EASEL_ENGINE__SLOTS": "64"})
    assert (config.engine.slots, config.tenants[0].name, config.replicas) == (64, "acme", 4)


def test_defaults_are_written_as_a_file_has_them() -> None:
    page = configuration_page()
    assert re.search(r"\| `engine.partial`.*\| `false` \|", page)
    assert re.search(r"\| `limits.max_body_bytes`.*\| `4MiB` \|", page)
    assert re.search(r"\| `model`.*\| required \|", page)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int | None, "whole number"),
        (bool, "`true` or `false`"),
        (Literal["host", "graph"], "`host`, `graph`"),
        (tuple[str, ...], "list of text"),
        (tuple[TenantSection, ...], "list of sections"),
        (ByteSize | None, "size, such as `64MiB`"),
    ],
)
def test_types_are_said_in_words(kind: Any, words: str) -> None:
    assert describe_type(kind) == words


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (Field(ge=0, le=1), "at least 0, at most 1"),
        (Field(gt=0), "above 0"),
        (Field(min_length=1), "not empty"),
        (Field(), ""),
    ],
)
def test_bounds_are_said_in_words(field: Any, words: str) -> None:
    assert describe_bounds(field) == words
