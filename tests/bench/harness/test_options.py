from math import inf
from pathlib import Path
from typing import Any

import pytest

from easel.bench.harness.arrivals import Closed, Gamma, Poisson, Replay
from easel.bench.harness.errors import WrongOption
from easel.bench.harness.options import Options, plan_of
from easel.bench.harness.workloads import Chats, LongPrompts, Prompts, Prose, Questions, Recorded
from tests.bench.harness.test_arrivals import a_trace

URL = "http://127.0.0.1:8000"


def test_without_options_eight_clients_ask_the_demos_questions() -> None:
    plan = plan_of(Options(URL))
    assert plan.load.arrivals == Closed(8)
    assert (plan.load.requests, plan.load.seconds) == (200, inf)
    assert isinstance(plan.workload, Questions)
    assert plan.slo is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"clients": 3}, Closed(3)),
        ({"rate": 2.0}, Poisson(2.0)),
        ({"arrivals": "gamma:2:0.5"}, Gamma(2.0, 0.5)),
    ],
)
def test_arrivals_have_short_names(given: dict[str, Any], expected: object) -> None:
    assert plan_of(Options(URL, **given)).load.arrivals == expected


def test_a_time_limit_alone_sets_no_number_of_requests() -> None:
    assert plan_of(Options(URL, seconds=5.0)).load.requests is None
    assert plan_of(Options(URL, seconds=5.0, requests=7)).load.requests == 7


def test_a_replay_asks_for_as_many_and_as_long_as_recorded(tmp_path: Path) -> None:
    plan = plan_of(Options(URL, arrivals=f"replay:{a_trace(tmp_path / 't.jsonl')}"))
    assert isinstance(plan.load.arrivals, Replay)
    assert isinstance(plan.workload, Recorded)
    assert plan.load.requests == 3
    assert isinstance(plan_of(Options(URL, arrivals="poisson:1", workload="prose")).workload, Prose)


@pytest.mark.parametrize(
    ("name", "kind"), [("demo", Questions), ("prose", Prose), ("long", LongPrompts), ("chats", Chats)]
)
def test_workloads_are_known_by_name(name: str, kind: type[object]) -> None:
    assert isinstance(plan_of(Options(URL, workload=name)).workload, kind)


def test_a_file_of_prompts_is_a_workload(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "hi"}')
    assert isinstance(plan_of(Options(URL, workload=f"file:{file}")).workload, Prompts)


def test_results_name_headers_but_not_what_is_in_them() -> None:
    plan = plan_of(Options(URL, api_key="secret", headers=("x-token: secret", "x-deadline:8")))
    assert plan.target.headers == (("x-token", "secret"), ("x-deadline", "8"))
    assert "secret" not in str(plan.setup)
    assert plan.setup["options"]["headers"] == "x-token, x-deadline"


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"url": "localhost:8000"}, "URL"),
        ({"rate": 1.0, "clients": 2}, "--arrivals"),
        ({"arrivals": "poisson:0"}, "--arrivals"),
        ({"workload": "chat"}, "--workload"),
        ({"workload": "file:"}, "--workload"),
        ({"workload": "file:/nowhere"}, "--workload"),
        ({"prompt_tokens": "many"}, "--prompt-tokens"),
        ({"endpoint": "responses"}, "--endpoint"),
        ({"body": "[1]"}, "--body"),
        ({"body": "{"}, "--body"),
        ({"headers": ("novalue",)}, "--header"),
        ({"slo": "ttfb=x"}, "--slo"),
        ({"thresholds": "0.5;0.7"}, "--thresholds"),
        ({"thresholds": "2"}, "--thresholds"),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, Any], option: str) -> None:
    fields: dict[str, Any] = {"url": URL} | given
    with pytest.raises(WrongOption) as raised:
        plan_of(Options(**fields))
    assert raised.value.option.startswith(option)
    assert raised.value.exit_code == 2
