"""`easel chat`: one question or a conversation in the terminal."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from easel.cluster.canvas_view import CanvasView
from easel.cluster.chat_client import BlockText, Canvas, ChatClient, Summary, Turn

Sleep = Callable[[float], None]


def ask(
    client: ChatClient,
    console: Console,
    messages: Sequence[Turn],
    pace: float,
    sleep: Sleep = time.sleep,
) -> str:
    """Draw the answer as it settles, then print it plainly, and return it.

    Where the output is no terminal, only the answer is printed. Raises ChatFailed.
    """
    view, summary = CanvasView(), None
    with Live(view, console=console, transient=True, auto_refresh=False) as live:
        for part in client.answer(messages):
            match part:
                case Canvas():
                    view.show(part)
                case BlockText():
                    view.commit(part.text)
                case Summary():
                    summary = part
            if console.is_terminal:
                live.refresh()
                # The server does not wait: a step takes milliseconds, an eye needs longer.
                sleep(pace if isinstance(part, Canvas) else 0.0)
    console.print(Text(view.committed), soft_wrap=True)
    if summary is not None and console.is_terminal:
        console.print(_caption(summary), style="dim")
    return view.committed


def converse(client: ChatClient, console: Console, pace: float) -> None:
    """Ask, answer, and remember, until an empty line or the end of input. Raises ChatFailed."""
    console.print(f"{client.model()} at {client.url}; an empty line ends.", style="dim")
    messages: list[Turn] = []
    while question := _next_question(console):
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": ask(client, console, messages, pace)})


def _next_question(console: Console) -> str:
    try:
        return console.input("[bold]> [/bold]").strip()
    except (EOFError, KeyboardInterrupt):
        return ""


def _caption(summary: Summary) -> str:
    return (
        f"{summary.tokens} tokens, {summary.blocks} blocks, {summary.steps} steps, "
        f"{summary.milliseconds_per_step:.1f} ms a step"
    )
