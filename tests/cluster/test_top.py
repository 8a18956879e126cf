"""`easel top`: what is read, what is drawn, and what happens while the cluster cannot be seen."""

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rich.console import Console

from easel.cluster.top import Rates, show_once, watch
from easel.cluster.top_client import Step, TopClient, WatchFailed, cluster_of
from easel.cluster.top_view import BARS, TopView, bar_of, meter, style_of, tallest_of

REPLICA: dict[str, Any] = {
    "id": "r1",
    "state": "serving",
    "slots": 16,
    "slots_used": 5,
    "pages": 1024,
    "pages_available": 900,
    "waiting": 2,
    "block_length": 32,
    "page_size": 32,
    "policy_epoch": 17,
    "policy_age_seconds": 0.2,
    "steps_per_block": 1.3,
    "step_seconds": 0.004,
    "cost_error": 0.08,
    "blocks": 1234,
    "committed_tokens": 3000,
    "preemptions": 0,
    "strip": [
        {"step": 1, "refresh": 64, "reuse": 0, "predicted_ms": 4.0, "actual_ms": 8.0},
        {"step": 2, "refresh": 0, "reuse": 64, "predicted_ms": 2.0, "actual_ms": 2.0},
    ],
}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "state": "failed",
    "began": 1763861999.0,
    "seconds": 0.4,
    "blocks": 3,
    "tokens": 70,
    "steps": 20,
    "replica": None,
}
CLUSTER: dict[str, Any] = {
    "time": 1763862000.0,
    "model": "easel-demo",
    "journal": "degraded",
    "waiting": 3,
    "lost_replicas": 1,
    "replicas": [REPLICA],
    "faults": [{"time": 1763861990.0, "kind": "replica_lost", "replica": "r0"}],
    "requests": [ANSWER],
}
UNAVAILABLE = httpx.Response(503, json={"error": {"message": "the scheduler is away"}})


def later(seconds: float, tokens: int) -> dict[str, Any]:
    """The same cluster after a while, in which so many tokens were committed."""
    replica = REPLICA | {"committed_tokens": REPLICA["committed_tokens"] + tokens}
    return CLUSTER | {"time": CLUSTER["time"] + seconds, "replicas": [replica]}


def client_for(*answers: object) -> TopClient:
    """A client whose server gives these answers, one after the other, the last one again and again."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        next_one = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(next_one, httpx.Response):
            return next_one
        return httpx.Response(200, content=json.dumps(next_one))

    return TopClient("http://gateway", "key", httpx.MockTransport(answer))


def console(width: int = 160, is_terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        height=40,
        highlight=False,
        force_terminal=is_terminal,
        color_system=None,
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def ending_after(count: int) -> Callable[[float], None]:
    """A sleep that becomes Ctrl-C."""
    pauses = iter(range(count))

    def sleep(_: float) -> None:
        if next(pauses, None) is None:
            raise KeyboardInterrupt

    return sleep


def test_everything_an_operator_asks_for_is_drawn() -> None:
    screen = console()
    with client_for(CLUSTER, later(2.0, tokens=100)) as client:
        show_once(client, screen, 2.0, sleep=lambda _: None)
    lines = written(screen).splitlines()
    assert "easel-demo at http://gateway" in lines[0]
    assert "journal degraded   3 waiting   1 replicas, 1 lost" in lines[0]
    replica, steps = [line.split() for line in lines if line.startswith("r1")]
    assert replica[1:2] + replica[3:4] + replica[5:] == [
        "serving",
        "5/16",
        "124/1024",
        "2",
        "17,",
        "0.2",
        "s",
        "50",
        "1.3",
    ]
    assert steps[1:] == ["5.0", "3.0", "50%", "█▃"]
    assert any("replica lost" in line and line.rstrip().endswith("r0") for line in lines)
    assert any(line.startswith("chatcmpl-1  failed") for line in lines)


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    screen = console(width)
    many = REPLICA | {"strip": REPLICA["strip"] * 60}
    screen.print(TopView(cluster_of(CLUSTER | {"replicas": [many] * 3}), "http://gateway", {}))
    assert max(len(line) for line in written(screen).splitlines()) <= width


def test_a_cluster_without_replicas_or_requests_is_drawn_too() -> None:
    screen = console()
    bare = CLUSTER | {"replicas": [], "faults": [], "requests": []}
    screen.print(TopView(cluster_of(bare), "http://gateway", {}))
    assert "0 replicas" in written(screen)


def test_a_replica_that_has_not_taken_a_step_has_no_times() -> None:
    screen = console()
    idle = CLUSTER | {"replicas": [REPLICA | {"strip": []}]}
    screen.print(TopView(cluster_of(idle), "http://gateway", {}))
    assert [line.split()[1:] for line in written(screen).splitlines() if line.startswith("r1")][1] == [
        "–"
    ] * 3


@pytest.mark.parametrize(
    ("refresh", "reuse", "style"), [(64, 0, "magenta"), (32, 32, "yellow"), (0, 64, "cyan"), (0, 0, "cyan")]
)
def test_a_step_s_colour_is_its_phase(refresh: int, reuse: int, style: str) -> None:
    assert style_of(Step(refresh, reuse, 1.0, 1.0)) == style


@pytest.mark.parametrize(
    ("value", "tallest", "bar"), [(0.0, 8.0, BARS[0]), (8.0, 8.0, BARS[-1]), (1.0, 0.0, BARS[0])]
)
def test_a_bar_is_as_high_as_its_share_of_the_tallest(value: float, tallest: float, bar: str) -> None:
    assert bar_of(value, tallest) == bar


def test_one_hiccup_does_not_flatten_all_other_bars() -> None:
    assert tallest_of([1.0, 2.0] * 20 + [900.0]) == 2.0
    assert tallest_of([2.0, 8.0]) == 8.0
    assert tallest_of([]) == 0.0


@pytest.mark.parametrize(
    ("used", "whole", "drawn"),
    [(0, 4, "░░░░ 0/4"), (1, 4, "█░░░ 1/4"), (9, 4, "████ 9/4"), (0, 0, "░░░░ 0/0")],
)
def test_a_meter_never_overflows(used: int, whole: int, drawn: str) -> None:
    assert meter(used, whole, 4).plain == drawn


def test_a_replica_that_begins_anew_has_no_negative_rate() -> None:
    rates = Rates()
    assert rates.of(cluster_of(CLUSTER)) == {}
    assert rates.of(cluster_of(later(1.0, tokens=-2900))) == {"r1": 0.0}
    assert rates.of(cluster_of(later(3.0, tokens=-2700))) == {"r1": 100.0}


def test_watching_goes_on_while_the_scheduler_is_away_and_says_so() -> None:
    screen = console(is_terminal=True)
    with client_for(CLUSTER, UNAVAILABLE, later(9.0, tokens=0)) as client:
        watch(client, screen, 1.0, sleep=ending_after(1))
    assert "the scheduler is away" in written(screen)
    assert "chatcmpl-1" in written(screen)


def test_a_key_that_is_wrong_ends_the_watching() -> None:
    refusal = httpx.Response(401, json={"error": {"message": "The API key is not a valid one"}})
    with client_for(CLUSTER, refusal) as client, pytest.raises(WatchFailed, match="not a valid one"):
        watch(client, console(), 1.0, sleep=lambda _: None)


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(200, text="<html>"), httpx.Response(404, json={"detail": "Not Found"}), {"time": 1.0}],
)
def test_another_program_s_port_is_recognised(answer: object) -> None:
    with client_for(answer) as client, pytest.raises(WatchFailed, match="is it another program's"):
        client.cluster()


def test_where_nothing_listens_the_remedy_is_told() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = TopClient("http://gateway", "", httpx.MockTransport(refuse))
    with client, pytest.raises(WatchFailed, match="is `easel serve` running there"):
        client.cluster()


def test_fields_that_a_newer_server_adds_are_passed_over() -> None:
    newer = CLUSTER | {"colour": "blue", "replicas": [REPLICA | {"mood": "good"}]}
    assert cluster_of(newer) == cluster_of(CLUSTER)
