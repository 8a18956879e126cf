import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from easel.cluster.cli import app
from tests.bench.harness.fakes import FakeServer, serving


def easel(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def url() -> Iterator[str]:
    """Of a plain server, in a thread: the command has a loop of its own."""
    addresses: list[str] = []
    ready, loop, over = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with serving(FakeServer()) as address:
            addresses.append(address)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    yield addresses[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def test_a_load_is_printed_and_written_and_compared_and_drawn(url: str, tmp_path: Path) -> None:
    first, second, page = (tmp_path / name for name in ("a.json", "b.json", "a.html"))
    for file in (first, second):
        answer = easel("bench", url, "--requests", "6", "--json", str(file), "--html", str(page))
        assert answer.exit_code == 0, answer.output
        assert "6 of 6 requests answered" in answer.output
    assert json.loads(first.read_text())["format"] == "easel-bench-1"
    assert page.read_text().startswith("<!doctype html>")
    compared = easel("bench", "compare", str(first), str(second), "--draws", "20")
    assert compared.exit_code == 0
    assert "first block, p99" in compared.output
    page.unlink()
    assert easel("bench", "report", str(first), str(page)).exit_code == 0
    assert "under load" in page.read_text()


@pytest.mark.parametrize(("slo", "code"), [("e2e=60", 0), ("e2e=0.000001", 1)])
def test_the_exit_code_says_whether_the_promise_was_kept(url: str, slo: str, code: int) -> None:
    assert easel("bench", url, "--requests", "4", "--slo", slo).exit_code == code


@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "nowhere"),
        ("bench", "--slo", "fast"),
        ("bench", "--requests", "none"),
        ("bench", "--no-such-option"),
        ("bench", "compare", "no.json", "no.json"),
        ("bench", "report", "no.json", "no.html"),
    ],
)
def test_a_wrong_use_has_an_exit_code_of_its_own(arguments: tuple[str, ...]) -> None:
    assert easel(*arguments).exit_code == 2


def test_a_server_that_is_not_there_is_named(unused_tcp_port: int) -> None:
    answer = easel("bench", f"http://127.0.0.1:{unused_tcp_port}")
    assert answer.exit_code == 1
    assert "is `easel serve` running there?" in answer.stderr


def test_the_help_of_a_load_names_the_other_commands() -> None:
    assert "compare A.json B.json" in easel("bench", "--help").output
