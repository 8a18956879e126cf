"""Draws an answer while its last block is still settling."""

import re
from dataclasses import dataclass

from rich.console import RenderableType
from rich.text import Text

from easel.cluster.chat_client import Canvas

UNDECIDED = "·"
SPECIAL = re.compile(r"<[|/]?\w+\|?>")  # the names of special tokens, such as end-of-sequence
END = "∎"
CONFIDENCE_STYLES = ((0.99, "green"), (0.9, "bright_green"), (0.7, "yellow"), (0.0, "red"))


@dataclass(slots=True)
class CanvasView:
    """The committed text, then the canvas: undecided positions dim, decided ones by confidence."""

    committed: str = ""
    canvas: Canvas | None = None

    def show(self, canvas: Canvas) -> None:
        """The live block after another step."""
        self.canvas = canvas

    def commit(self, text: str) -> None:
        """A finished block's text takes the place of its canvas."""
        self.committed += text
        self.canvas = None

    def __rich__(self) -> RenderableType:
        text = Text(self.committed)
        if self.canvas is None:
            return text
        for position in range(self.canvas.first, len(self.canvas.tokens)):
            text.append(*_cell(self.canvas, position))
        return text.append(f"\n{_caption(self.canvas)}", "dim")


def _cell(canvas: Canvas, position: int) -> tuple[str, str]:
    """What to draw at one position, and its style."""
    if not canvas.decided[position]:
        return UNDECIDED, "dim"
    token = canvas.tokens[position]
    if SPECIAL.fullmatch(token):
        return END, "dim"
    return token, style_of(canvas.confidence[position])


def style_of(confidence: float | None) -> str:
    """Green is certain, red is a guess."""
    return next(style for least, style in CONFIDENCE_STYLES if (confidence or 0.0) >= least)


def _caption(canvas: Canvas) -> str:
    live = canvas.decided[canvas.first :]
    seconds = f", {canvas.seconds:.2f} s" if canvas.seconds else ""
    return f"block {canvas.block + 1}, step {canvas.step}: {sum(live)} of {len(live)} decided{seconds}"
