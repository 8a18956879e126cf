import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import replace

import httpx
import pytest
from rich.console import Console

from easel.cluster.canvas_view import END, UNDECIDED, CanvasView, style_of
from easel.cluster.chat import ask, converse
from easel.cluster.chat_client import (
    BlockText,
    Canvas,
    ChatClient,
    ChatFailed,
    ChatOptions,
    Summary,
    Turn,
)
from easel.cluster.errors import NoReplica
from easel.cluster.gateway.settings import GatewaySettings
from easel.scheduler.messages import CanvasSnapshot
from easel.scheduler.request import Request
from tests.cluster.gateway.fakes import (
    MODEL,
    FakeBackend,
    Script,
    block,
    blocks_of,
    client_of,
    gateway_app,
    saying,
    tokens_of,
)

QUESTION: list[Turn] = [{"role": "user", "content": "hi"}]


def settling(request: Request) -> Script:
    def canvas(step: int, decided: Sequence[bool]) -> CanvasSnapshot:
        tokens = (*tokens_of("42"), 0, 1)
        return CanvasSnapshot(request.request_id, 0, step, tokens, tuple(decided), (0.999, 0.8, 0.95, 0.1), 0)

    steps = [canvas(1, [True, False, False, False]), canvas(2, [True, True, True, False])]
    return [*steps, *blocks_of(request, tokens_of("42"))]


def client_for(
    backend: FakeBackend, options: ChatOptions | None = None, key: str = "", keys: Sequence[str] = ()
) -> ChatClient:
    """A client whose server is a gateway in this process."""
    app = gateway_app(backend, settings=GatewaySettings(api_keys=tuple(keys)))

    async def forward(request: httpx.Request) -> httpx.Response:
        async with client_of(app) as client:
            answer = await client.request(
                request.method, request.url.path, content=request.read(), headers=request.headers
            )
            return httpx.Response(answer.status_code, content=answer.content)

    transport = httpx.MockTransport(lambda request: asyncio.run(forward(request)))
    return ChatClient("http://gateway", key, options or ChatOptions(), transport)


def terminal(is_terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=is_terminal, width=80, highlight=False, color_system=None
    )


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_an_answer_is_read_as_canvases_blocks_and_a_summary() -> None:
    with client_for(FakeBackend(settling)) as client:
        parts = list(client.answer(QUESTION))
    assert [type(part) for part in parts] == [Canvas, Canvas, BlockText, Summary]
    first = parts[0]
    assert isinstance(first, Canvas)
    assert first.seconds > 0.0
    assert replace(first, seconds=0.0) == Canvas(
        block=0,
        step=1,
        first=0,
        tokens=["4", "2", "<|eos|>", "<|mask|>"],
        decided=[True, False, False, False],
        confidence=[0.999, 0.8, 0.95, 0.1],
    )
    assert parts[2:] == [BlockText("42"), Summary(2, 1, 2, 5.0)]


def test_options_reach_the_request() -> None:
    backend = saying("x")
    options = ChatOptions(MODEL, temperature=0.5, seed=9, max_tokens=6, steps=3, threshold=0.7)
    with client_for(backend, options) as client:
        list(client.answer(QUESTION))
    sampling, diffusion = backend.requests[0].sampling, backend.requests[0].diffusion
    assert (sampling.temperature, sampling.seed, sampling.max_tokens) == (0.5, 9, 6)
    assert (diffusion.steps, diffusion.threshold) == (3, 0.7)


def test_without_a_model_the_first_that_is_served_answers() -> None:
    with client_for(saying("x")) as client:
        assert client.model() == MODEL


def test_a_key_is_sent_when_there_is_one() -> None:
    with client_for(saying("yes"), key="secret", keys=["secret"]) as client:
        assert BlockText("yes") in list(client.answer(QUESTION))
    with client_for(saying("yes"), keys=["secret"]) as client, pytest.raises(ChatFailed, match="No API key"):
        list(client.answer(QUESTION))


def test_a_server_s_refusal_is_told_in_its_words() -> None:
    options = ChatOptions(model="other")
    with client_for(saying("x"), options) as client, pytest.raises(ChatFailed, match="known models: tiny"):
        list(client.answer(QUESTION))


def test_a_failure_within_an_answer_is_told() -> None:
    def failing(request: Request) -> Script:
        return [block(request, 0, tokens_of("x")), NoReplica(2.0)]

    with client_for(FakeBackend(failing)) as client, pytest.raises(ChatFailed, match="no worker replica"):
        list(client.answer(QUESTION))


def test_another_program_at_the_port_is_recognised() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404, content=b"<html>"))
    with (
        ChatClient("http://other", "", ChatOptions(), transport) as client,
        pytest.raises(ChatFailed, match="another program"),
    ):
        client.model()


def test_a_terminal_sees_the_canvas_settle_and_then_the_plain_answer() -> None:
    console, pauses = terminal(), list[float]()
    with client_for(FakeBackend(settling)) as client:
        assert ask(client, console, QUESTION, pace=0.5, sleep=pauses.append) == "42"
    assert f"4{UNDECIDED * 3}" in written(console)
    assert f"42{END}{UNDECIDED}" in written(console)
    assert "block 1, step 2: 3 of 4 decided" in written(console)
    assert written(console).endswith("42\n2 tokens, 1 blocks, 2 steps, 5.0 ms a step\n")
    assert pauses == [0.5, 0.5, 0.0, 0.0]


def test_a_pipe_gets_only_the_answer() -> None:
    console = terminal(is_terminal=False)
    with client_for(FakeBackend(settling)) as client:
        ask(client, console, QUESTION, pace=0.5, sleep=lambda _: pytest.fail("nobody watches a pipe"))
    assert written(console) == "42\n"


def test_an_answer_is_printed_as_it_is_even_if_it_looks_like_markup() -> None:
    console = terminal(is_terminal=False)
    with client_for(saying("[bold]x[/bold] :smile:", length=64)) as client:
        ask(client, console, QUESTION, pace=0)
    assert written(console) == "[bold]x[/bold] :smile:\n"


def test_a_conversation_remembers_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter(["hi", "more", ""])
    console = terminal(is_terminal=False)

    def next_question(_: str) -> str:
        return next(asked)

    monkeypatch.setattr(console, "input", next_question)
    backend = saying("ok")
    with client_for(backend) as client:
        converse(client, console, pace=0)
    user, assistant = 2, 3
    first = (user, *tokens_of("hi"), assistant)
    assert [request.prompt for request in backend.requests] == [
        first,
        (*first, *tokens_of("ok"), user, *tokens_of("more"), assistant),
    ]


def test_the_prompt_s_part_of_a_canvas_is_not_drawn() -> None:
    view = CanvasView(committed="so ")
    view.show(Canvas(0, 1, 2, ["p", "q", "a", "b"], [True] * 4, [1.0] * 4))
    console = terminal()
    console.print(view)
    assert written(console) == "so ab\nblock 1, step 1: 2 of 2 decided\n"


def test_a_committed_block_replaces_its_canvas() -> None:
    view = CanvasView()
    view.show(Canvas(0, 1, 0, ["a", "b"], [True, False], [1.0, 0.5]))
    view.commit("ab")
    console = terminal()
    console.print(view)
    assert written(console) == "ab\n"


@pytest.mark.parametrize(
    ("confidence", "style"),
    [(1.0, "green"), (0.95, "bright_green"), (0.8, "yellow"), (0.2, "red"), (None, "red")],
)
def test_the_colour_of_a_position_is_its_confidence(confidence: float | None, style: str) -> None:
    assert style_of(confidence) == style


def test_options_that_are_not_given_are_not_sent() -> None:
    assert json.dumps(ChatOptions().fields()) == "{}"
