"""The checkpoint's tokenizer and chat template, as the gateway uses them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from jinja2.exceptions import TemplateError

from easel.cluster.gateway.errors import InvalidField
from easel.worker.errors import CheckpointError

OFFLOAD_CHARACTERS = 16_384  # a longer text takes milliseconds, too long for the event loop


class ChatTokenizer:
    """Text to tokens and back. Wraps a fast tokenizer of transformers; one per gateway process."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._pieces: dict[int, str] = {}  # bounded by the vocabulary

    @classmethod
    def load(cls, path: Path) -> "ChatTokenizer":
        """Read the tokenizer of a checkpoint directory; never runs code from it, never downloads.

        `tokenizer.json` says all there is to say, whatever class of its own a checkpoint names.
        Raises CheckpointError for a directory that has none and needs such a class.
        """
        # Takes seconds to import; processes that only name this type should not pay for it.
        from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: PLC0415

        whole = (path / "tokenizer.json").is_file()
        loader = cast(Any, PreTrainedTokenizerFast if whole else AutoTokenizer)
        try:
            return cls(loader.from_pretrained(path, local_files_only=True, trust_remote_code=False))
        except (OSError, ValueError) as error:
            remedy = "save its fast tokenizer there (tokenizer.json); code in a checkpoint is never run"
            raise CheckpointError(f"{path}: no tokenizer can be read ({error}); {remedy}.") from error

    async def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """The prompt that the chat template makes of the messages, ready for the assistant's turn.

        Raises InvalidField when there is no template or the template refuses the messages.
        """
        characters = sum(len(message["content"]) for message in messages)
        return await self._run(characters, lambda: self._render(messages))

    async def encode_text(self, text: str) -> tuple[int, ...]:
        """Plain text with the special tokens the tokenizer itself adds to a text."""
        return await self._run(len(text), lambda: tuple(self._tokenizer.encode(text)))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out, spaces as they are."""
        return self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def piece(self, token: int) -> str:
        """One token as text, special tokens by their names; for drawing a canvas."""
        if token not in self._pieces:
            self._pieces[token] = self._tokenizer.decode(
                [token], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        return self._pieces[token]

    def _render(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        if self._tokenizer.chat_template is None:
            problem = "cannot be used: this model has no chat template; use /v1/completions."
            raise InvalidField("messages", problem)
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InvalidField("messages", f"does not suit the model's chat template: {error}.") from error
        # The template writes the special tokens itself.
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    async def _run(self, characters: int, work: Callable[[], tuple[int, ...]]) -> tuple[int, ...]:
        return await asyncio.to_thread(work) if characters > OFFLOAD_CHARACTERS else work()
