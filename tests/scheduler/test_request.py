"""Request: parameters out of range are refused by name."""

from typing import Any

import pytest

from easel.scheduler.errors import InvalidParameter
from easel.scheduler.request import MAX_SEED, DiffusionParams, Request, SamplingParams


def _only(name: str, value: float) -> dict[str, Any]:
    return {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 10.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
    ],
)
def test_sampling_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidParameter) as invalid:
        SamplingParams(**_only(name, value))
    assert invalid.value.name == name


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("threshold", 1.5), ("threshold", -0.1), ("entropy_bound", -1.0), ("stop_entropy", -1.0)],
)
def test_diffusion_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InvalidParameter) as invalid:
        DiffusionParams(**_only(name, value))
    assert invalid.value.name == name


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="prompt"):
        Request("a", ())


def test_the_prefix_is_the_prompt_and_what_was_committed() -> None:
    request = Request("a", (1, 2), SamplingParams(max_tokens=10), committed=(3, 4))
    assert request.prefix == (1, 2, 3, 4)
    assert request.total_tokens == 12
