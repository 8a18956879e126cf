"""A scripted backend, a byte tokenizer and a gateway on top of them."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.settings import GatewaySettings, Sources
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.request import DiffusionParams, FinishReason, Request
from easel.worker.families import FAMILIES
from easel.worker.model_info import ModelInfo

MODEL = "tiny"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
FRESH_SEED = 4242
MAX_MODEL_TOKENS = 64
SPECIAL = ("<|eos|>", "<|mask|>", "<|user|>", "<|assistant|>", "<|system|>")
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and not loop.first %}"
    "{{ raise_exception('system goes first') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}<|assistant|>"
)

Script = Sequence[BlockEvent | CanvasSnapshot | Exception]


def byte_tokenizer(template: str | None = TEMPLATE) -> ChatTokenizer:
    """One token per byte, so that any character beyond ASCII is several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return ChatTokenizer(
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], chat_template=template)
    )


def tokens_of(text: str) -> tuple[int, ...]:
    """The byte tokenizer's tokens, worked out without it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = "".join(piece for piece, _ in splitter.pre_tokenize_str(text))
    return tuple(len(SPECIAL) + alphabet.index(character) for character in pieces)


def model_info(**changes: Any) -> ModelInfo:
    values: dict[str, Any] = {
        "name": MODEL,
        "path": Path("tiny"),
        "architecture": "SDARForCausalLM",
        "family": FAMILIES["SDARForCausalLM"],
        "vocab_size": 261,
        "block_length": 8,
        "mask_token_id": 1,
        "eos_token_ids": frozenset({0}),
        "max_model_tokens": MAX_MODEL_TOKENS,
        "max_output_tokens": 32,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "diffusion": DiffusionParams(steps=8),
    }
    return ModelInfo(**(values | changes))


def block(
    request: Request, index: int, tokens: Sequence[int], finish: FinishReason | None = None
) -> BlockEvent:
    return BlockEvent(
        request_id=request.request_id,
        block_index=index,
        tokens=tuple(tokens),
        steps=2,
        mean_entropy=0.25,
        seconds=0.01,
        finish=finish,
        cached_tokens=3,
        queue_seconds=0.004,
        prefill_seconds=0.002,
    )


def blocks_of(
    request: Request,
    tokens: Sequence[int],
    length: int = 8,
    finish: FinishReason = FinishReason.STOP,
) -> list[BlockEvent]:
    """The tokens cut into blocks; the last one has the finish."""
    pieces = [tokens[start : start + length] for start in range(0, len(tokens), length)] or [()]
    last = len(pieces) - 1
    return [
        block(request, index, piece, finish if index == last else None) for index, piece in enumerate(pieces)
    ]


@dataclass
class FakeBackend:
    """Plays the script of each request. With `hold_after`, waits for ever after that many events."""

    script: Callable[[Request], Script]
    hold_after: int | None = None
    is_ready: bool = True
    state: dict[str, object] | Exception = field(default_factory=lambda: {"journal": "ok", "replicas": 2})
    requests: list[Request] = field(default_factory=list[Request])
    cancelled: list[str] = field(default_factory=list[str])
    holding: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(
        self, request: Request, done: Sequence[BlockEvent] = ()
    ) -> AsyncGenerator[BlockEvent | CanvasSnapshot, None]:
        self.requests.append(request)
        ended = False
        try:
            for count, event in enumerate(self.script(request)):
                if count == self.hold_after:
                    self.holding.set()
                    await asyncio.Event().wait()
                await asyncio.sleep(0)
                if isinstance(event, Exception):
                    ended = True
                    raise event
                ended = isinstance(event, BlockEvent) and event.finish is not None
                yield event
        finally:
            if not ended:
                self.cancelled.append(request.request_id)

    async def ready(self) -> bool:
        return self.is_ready

    async def status(self) -> dict[str, object]:
        if isinstance(self.state, Exception):
            raise self.state
        return self.state


def saying(text: str, **how: Any) -> FakeBackend:
    """A backend that answers every request with this text."""
    tokens = tokens_of(text)
    return FakeBackend(lambda request: blocks_of(request, tokens, **how))


@dataclass
class Ticks:
    """A clock that moves by a second each time it is read."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def gateway_app(
    backend: FakeBackend,
    model: ModelInfo | None = None,
    settings: GatewaySettings | None = None,
    tokenizer: ChatTokenizer | None = None,
    clock: Callable[[], float] | None = None,
) -> FastAPI:
    sources = Sources(
        clock=clock or Ticks(), wall=lambda: 1000.5, new_id=lambda: "id", new_seed=lambda: FRESH_SEED
    )
    return build_gateway(backend, model or model_info(), tokenizer or byte_tokenizer(), settings, sources)


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


async def post(app: FastAPI, path: str, body: object, **headers: str) -> httpx.Response:
    async with client_of(app) as client:
        # Not `json=`, which refuses the lone surrogates that a client may well send.
        content = json.dumps(body).encode()
        return await client.post(
            path, content=content, headers={"content-type": "application/json"} | headers
        )


async def get(app: FastAPI, path: str, **headers: str) -> httpx.Response:
    async with client_of(app) as client:
        return await client.get(path, headers=headers)


async def chat(backend: FakeBackend, content: Any = "hi", **fields: Any) -> httpx.Response:
    """One user turn, sent to a gateway with this backend."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}
    return await post(gateway_app(backend), CHAT, body)


async def complete(backend: FakeBackend, prompt: object = "hi", **fields: Any) -> httpx.Response:
    return await post(gateway_app(backend), COMPLETIONS, {"model": MODEL, "prompt": prompt, **fields})


def events_in(text: str) -> list[tuple[str | None, Any]]:
    """(event name, data) of each server-sent event; `[DONE]` stays a string."""
    events: list[tuple[str | None, Any]] = []
    for part in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in part.split("\n"))
        data = fields["data"]
        events.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return events


def chunks_in(text: str) -> list[Any]:
    """The chunks of a stream that ended well."""
    events = events_in(text)
    assert events[-1] == (None, "[DONE]")
    assert all(name is None for name, _ in events)
    return [data for _, data in events[:-1]]
