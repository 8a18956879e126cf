"""Tokens to text, a block at a time, never half a character."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not, or not yet, a character


class Detokenizer:
    """Emits exactly the text that decoding all tokens at once would give.

    A trailing U+FFFD may be the first bytes of a character that the next token completes, so
    it is held back. Only a window of the tokens is decoded each time: it starts at the
    second-last place where the text ended in a whole character, because some decoders treat
    the first token of a text specially.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._context = 0  # leading tokens of the window that only give context
        self._emitted = 0  # characters of the window's text that were emitted

    def feed(self, tokens: Sequence[int]) -> str:
        """The new whole characters."""
        self._window.extend(tokens)
        text = self._decode(self._window)
        whole = text.rstrip(REPLACEMENT)
        new = whole[self._emitted :]
        self._emitted = max(self._emitted, len(whole))
        if whole == text:
            self._advance()
        return new

    def flush(self) -> str:
        """The rest, broken characters included, when no more tokens come."""
        text = self._decode(self._window)
        rest = text[self._emitted :]
        self._emitted = len(text)
        return rest

    def _advance(self) -> None:
        """Drop the old context; what came since becomes the context of what follows."""
        context = self._window[self._context :]
        text = self._decode(context)
        # A context without text (special tokens only) would not shield what follows it.
        if text:
            self._window, self._context, self._emitted = context, len(context), len(text)
