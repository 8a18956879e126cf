"""What one tenant has in the prefix cache, no other can tell: not from usage, not from the work it takes.

Work is counted in tokens and steps rather than timed, as time is what they cost. A gateway and an
engine in one process: what is tested is the same code, and counts would not differ in a cluster.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.auth import hash_of_key
from easel.cluster.gateway.settings import GatewaySettings, Tenant
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.scheduler.messages import BlockEvent, CanvasSnapshot
from easel.scheduler.prefix_cache import page_chain
from easel.scheduler.prefix_index import PrefixIndex
from easel.scheduler.request import Request
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine
from easel.worker.model_info import read_model_info
from tests.checkpoints import write_tiny_checkpoint

pytestmark = [pytest.mark.end_to_end, pytest.mark.asyncio]

MODEL = "tiny"
BLOCK = 8
PROMPT = "a secret that only one tenant knows: " * 4
SETTINGS = GatewaySettings(
    api_keys=("unnamed-1", "unnamed-2"),
    tenants=(
        Tenant("a", (hash_of_key("key-a"), hash_of_key("key-a2"))),
        Tenant("b", (hash_of_key("key-b"),)),
    ),
)


@dataclass(slots=True)
class EngineBackend:
    """An engine that runs one request at a time, in the caller's thread."""

    engine: Engine

    async def stream(
        self, request: Request, done: Sequence[BlockEvent] = ()
    ) -> AsyncGenerator[BlockEvent | CanvasSnapshot, None]:
        self.engine.submit(request)
        while self.engine.has_work:
            for event in self.engine.step():
                yield event
            await asyncio.sleep(0)

    async def ready(self) -> bool:
        return True

    async def status(self) -> dict[str, object]:
        return {}


@dataclass(frozen=True, slots=True)
class Work:
    """All that one request cost, and what its client was told."""

    cached_tokens: int
    refresh_tokens: int
    reuse_tokens: int
    steps: int
    text: str


@dataclass(slots=True)
class Server:
    """A gateway over an engine of its own, whose cache is empty at first."""

    engine: Engine
    client: httpx.AsyncClient

    @classmethod
    def start(cls, checkpoint: Path) -> "Server":
        engine = load_engine(checkpoint, EngineConfig(slots=2, pages=256, page_size=BLOCK, dtype="float32"))
        model = read_model_info(checkpoint, MODEL)
        app = build_gateway(EngineBackend(engine), model, ChatTokenizer.load(checkpoint), SETTINGS)
        transport = httpx.ASGITransport(app)
        return cls(engine, httpx.AsyncClient(transport=transport, base_url="http://gateway"))

    async def ask(self, key: str, prompt: str = PROMPT, max_tokens: int = 16) -> Work:
        before = self.engine.digest("", 0)
        answer = await self.client.post(
            "/v1/completions",
            json={"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "seed": 1},
            headers={"authorization": f"Bearer {key}"},
        )
        assert answer.status_code == 200, answer.text
        after = self.engine.digest("", 0)
        body = answer.json()
        return Work(
            cached_tokens=body["usage"]["prompt_tokens_details"]["cached_tokens"],
            refresh_tokens=after.refresh_tokens - before.refresh_tokens,
            reuse_tokens=after.reuse_tokens - before.reuse_tokens,
            steps=after.steps - before.steps,
            text=body["choices"][0]["text"],
        )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    write_tiny_checkpoint(path, block_length=BLOCK)
    return path


async def test_a_tenant_s_own_repeat_is_cached_under_any_of_its_keys(tiny: Path) -> None:
    server = Server.start(tiny)
    cold, warm, other_key = [await server.ask(key) for key in ("key-a", "key-a", "key-a2")]
    assert cold.cached_tokens == 0
    assert warm == other_key
    assert warm.cached_tokens >= len(PROMPT) - BLOCK
    assert warm.refresh_tokens < cold.refresh_tokens
    assert warm.text == cold.text


@pytest.mark.parametrize(
    ("owner", "stranger"), [("key-a", "key-b"), ("key-b", "unnamed-1"), ("unnamed-1", "unnamed-2")]
)
async def test_another_tenant_s_prompt_costs_what_one_costs_that_nobody_asked_before(
    tiny: Path, owner: str, stranger: str
) -> None:
    server = Server.start(tiny)
    cold = await server.ask(owner)
    assert await server.ask(stranger) == cold
    assert (await server.ask(owner)).cached_tokens == (await server.ask(stranger)).cached_tokens > 0


async def test_another_tenant_s_answer_is_not_cached_either(tiny: Path) -> None:
    server = Server.start(tiny)
    first = await server.ask("key-a")
    turn = PROMPT + first.text + "and then?"
    strange, own = await server.ask("key-b", turn), await server.ask("key-a", turn)
    assert (strange.cached_tokens, strange.text) == (0, own.text)
    assert own.cached_tokens > 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_tenant_sees_the_same_whatever_the_others_ask(tiny: Path, seed: int) -> None:
    draw = random.Random(seed)
    prompts = [PROMPT[: draw.randrange(1, len(PROMPT))] + draw.choice("xyz") * BLOCK for _ in range(3)]
    asked = [(draw.choice(("key-a", "key-b", "unnamed-1")), draw.choice(prompts)) for _ in range(12)]
    together, alone = Server.start(tiny), Server.start(tiny)
    seen = [await together.ask(key, prompt, BLOCK) for key, prompt in asked]
    expected = [await alone.ask(key, prompt, BLOCK) for key, prompt in asked if key == "key-b"]
    assert [work for (key, _), work in zip(asked, seen, strict=True) if key == "key-b"] == expected


async def test_the_names_by_which_placement_knows_pages_are_salted_too() -> None:
    tokens = list(range(5 * BLOCK))
    chains = {tenant: page_chain(tokens, BLOCK, tenant) for tenant in ("", "a", "b")}
    assert len({name for chain in chains.values() for name in chain}) == 15
    index = PrefixIndex(100)
    index.add(chains["a"], "replica")
    holders = {tenant: index.holders(chain, 8) for tenant, chain in chains.items()}
    assert holders == {"": [], "a": ["replica"], "b": []}
