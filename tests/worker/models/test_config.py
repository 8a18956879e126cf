"""The decoder's dimensions as either transformers writes them, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from easel.worker.errors import CheckpointError
from easel.worker.models.config import read_decoder_config
from tests.worker.configs import CONFIG, write_config


def test_the_head_dimension_follows_from_the_hidden_size_unless_it_is_given(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    assert read_decoder_config(tmp_path).head_dim == 128
    write_config(tmp_path, CONFIG | {"head_dim": 64})
    assert read_decoder_config(tmp_path).head_dim == 64


@pytest.mark.parametrize(
    "place",
    [
        {"rope_theta": 5e5},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": None},
    ],
    ids=["before-transformers-5", "transformers-5"],
)
def test_the_angle_base_is_found_where_either_transformers_writes_it(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    write_config(tmp_path, CONFIG | place)
    assert read_decoder_config(tmp_path).rope_theta == 5e5


@pytest.mark.parametrize(
    "change",
    [
        {"attention_bias": True},
        {"use_sliding_window": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_the_decoder_does_not_compute_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    write_config(tmp_path, CONFIG | change)
    with pytest.raises(
        CheckpointError, match=r"(attention_bias|use_sliding_window|hidden_act|rope_type).*supported"
    ):
        read_decoder_config(tmp_path)


def test_a_dimension_that_is_missing_is_named(tmp_path: Path) -> None:
    write_config(tmp_path, {key: value for key, value in CONFIG.items() if key != "intermediate_size"})
    with pytest.raises(CheckpointError, match=r"config\.json has no field 'intermediate_size'"):
        read_decoder_config(tmp_path)
