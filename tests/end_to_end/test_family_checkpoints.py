"""A checkpoint of each family, served as a user would: the text over HTTP is what the engine alone makes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import httpx
import pytest

from easel.bench.oracles.cases import random_tokens
from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.diffusion_gemma import Settings, TinyGemma, write_tiny
from easel.bench.oracles.dream import write_dream
from easel.bench.oracles.llada import write_llada
from easel.bench.oracles.llada2 import write_llada2
from easel.bench.oracles.sdar import write_sdar_moe
from easel.cluster.config import load_config
from easel.cluster.lifecycle import RunningCluster, start
from easel.cluster.ray_environment import free_port
from easel.scheduler.request import Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.loading import load_engine
from tests.checkpoints import tiny_tokenizer
from tests.worker.driving import generate

pytestmark = pytest.mark.end_to_end

VOCABULARY = 105
ANSWER = 20  # tokens, more than two blocks
WRITERS: dict[str, Callable[[Path], object]] = {
    "sdar-moe": lambda path: write_sdar_moe(path, Sizes()),
    "llada2": lambda path: write_llada2(path, Sizes()),
    "llada": lambda path: write_llada(path, Sizes()),
    "dream": lambda path: write_dream(path, Sizes()),
    "diffusion-gemma": lambda path: write_tiny(path, TinyGemma(), Settings()),
}


@dataclass(frozen=True, slots=True)
class Served:
    path: Path
    cluster: RunningCluster

    def post(self, body: dict[str, object], route: str = "completions") -> httpx.Response:
        url = f"{self.cluster.base_url}/v1/{route}"
        return httpx.post(url, json={"model": self.path.name, **body}, timeout=60, trust_env=False)


@pytest.fixture(scope="module", params=WRITERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("model") / request.param
    WRITERS[request.param](path)
    tiny_tokenizer(VOCABULARY).save_pretrained(path)
    settings = {"model": path, "port": free_port(), "replicas": 1, "engine": {"dtype": "float32"}}
    with start(load_config(overrides=settings)) as cluster:
        yield Served(path, cluster)


def test_a_served_checkpoint_answers_what_the_engine_alone_generates(served: Served) -> None:
    engine = load_engine(served.path, EngineConfig(dtype="float32"))
    tokenizer = tiny_tokenizer(VOCABULARY)
    draw = Random(3)
    for seed in range(3):
        prompt = random_tokens(draw, draw.randint(5, 40), VOCABULARY)
        body: dict[str, object] = {"prompt": list(prompt), "max_tokens": ANSWER, "seed": seed}
        answer = served.post(body).json()
        sampling = SamplingParams(max_tokens=ANSWER, temperature=engine.model.temperature, seed=seed)
        alone = generate(engine, [Request("alone", prompt, sampling, engine.model.diffusion)])["alone"]
        expected = tokenizer.decode(list(alone.tokens), skip_special_tokens=True)
        assert answer["choices"][0]["text"] == expected
        assert answer["diffusion"]["steps"] == sum(alone.steps)
        assert answer["usage"]["completion_tokens"] == len(alone.tokens)


def test_a_chat_goes_through_the_checkpoints_own_template(served: Served) -> None:
    message = {"role": "user", "content": "hello"}
    reply = served.post({"messages": [message], "max_tokens": ANSWER, "seed": 1}, "chat/completions")
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["prompt_tokens"] == 7, "a character a token, and two for the roles"


def test_an_option_of_another_family_is_refused_by_name(served: Served) -> None:
    renoises = served.path.name == "diffusion-gemma"
    option = "threshold" if renoises else "temperature_start"
    refused = served.post({"prompt": "x", "max_tokens": 1, "diffusion": {option: 0.5}})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == f"diffusion.{option}"
