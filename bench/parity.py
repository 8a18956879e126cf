"""Every family beside its published loop on a tiny random checkpoint: `python -m easel.bench.parity`.

Logits are compared with Hugging Face's model, whole generations with a plain loop over it: blocks,
steps of each block and the reason for the end, token for token, in float32. Differences make the
exit status 1.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import torch
import transformers
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from easel.bench.oracles.cases import random_requests, random_tokens
from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.diffusion_gemma import TinyGemma
from easel.bench.oracles.dream import DreamOracle, write_dream
from easel.bench.oracles.dual_cache import DualCacheOracle
from easel.bench.oracles.gemma import random_gemma_requests, write_gemma
from easel.bench.oracles.llada import LladaOracle, write_llada
from easel.bench.oracles.llada2 import write_llada2
from easel.bench.oracles.masked import Generation, Oracle
from easel.bench.oracles.passes import engine_logits, run_requests
from easel.bench.oracles.sdar import write_sdar, write_sdar_moe
from easel.bench.report import describe_setup, print_setup, write_json
from easel.scheduler.messages import PhasePolicy
from easel.scheduler.request import FinishReason, Request
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine

LOGITS_TOLERANCE = 5e-5  # float32, of logits up to 30
SEED = 1
DUAL_CACHE_PERIOD = 3  # steps from one full forward to the next

Run = Callable[[Sequence[Request]], dict[str, Generation]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A family's plain loop and requests for it."""

    name: str
    oracle: Oracle
    requests: Sequence[Request]

    @property
    def edits(self) -> bool:
        return any(request.diffusion.edit_threshold is not None for request in self.requests)

    def engine(
        self,
        *,
        slots: int = 8,
        page_blocks: int = 1,
        refresh_tokens: int = 512,
        fuse_commits: bool = True,
        partial: bool = False,
    ) -> Engine:
        policy = PhasePolicy(
            refresh_tokens=refresh_tokens, target_seconds=1e3, fuse_commits=fuse_commits, time_to_live=1e9
        )
        config = EngineConfig(
            slots=slots,
            page_size=page_blocks * self.oracle.block_length,
            dtype="float32",
            partial=partial,
            policy=policy,
        )
        return load_engine(self.oracle.path, config)


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table."""

    family: str
    check: str
    requests: int = 0
    stopped: int = 0  # requests that end at an end-of-sequence
    tokens: int = 0  # compared one by one; of logits, rows
    max_error: float = 0.0  # of logits
    different: int = 0  # requests

    @property
    def passed(self) -> bool:
        return self.different == 0 and self.max_error <= LOGITS_TOLERANCE


def subjects(folder: Path, prompts: int) -> Iterator[Subject]:
    """All families, LLaDA2.1's editing included; a checkpoint of each is written below `folder`."""
    masked = {
        "SDAR": (write_sdar, Sizes(shards=2)),
        "SDAR, B = 4": (write_sdar, Sizes(block_length=4, kv_heads=1, tied=True)),
        "SDAR, B = 32": (write_sdar, Sizes(block_length=32)),
        "SDAR-MoE": (write_sdar_moe, Sizes()),
        "LLaDA2.0": (write_llada2, Sizes(shards=2)),
        "LLaDA2.1": (write_llada2, Sizes()),
        "LLaDA": (write_llada, Sizes()),
        "Dream": (write_dream, Sizes()),
    }
    for name, (write, sizes) in masked.items():
        oracle = write(folder / name, sizes)
        editing = name == "LLaDA2.1"
        yield Subject(name, oracle, random_requests(oracle, prompts, SEED, editing=editing))
    gemma = write_gemma(folder / "DiffusionGemma", TinyGemma(eos_token_ids=(1, 20, 30, 50, 60)))
    yield Subject("DiffusionGemma", gemma, random_gemma_requests(gemma, prompts, SEED))


def compare(subject: Subject) -> Iterator[Result]:
    """All checks of one family. The plain loop runs once; the engine in every arrangement."""
    yield _compare_logits(subject)
    expected = {request.request_id: subject.oracle.generate(request) for request in subject.requests}
    for check, run in _arrangements(subject).items():
        yield _compare_generations(subject.name, check, expected, run(subject.requests))
    if isinstance(subject.oracle, LladaOracle | DreamOracle):
        yield _compare_dual_cache(subject, DualCacheOracle(subject.oracle))


def _compare_dual_cache(subject: Subject, oracle: DualCacheOracle) -> Result:
    """Approximate steps, beside the same approximation made with transformers."""
    requests = _rebuilding(subject.requests, DUAL_CACHE_PERIOD)
    expected = {request.request_id: oracle.generate(request) for request in requests}
    return _compare_generations(
        subject.name, "dual cache", expected, run_requests(subject.engine(), requests)
    )


def _arrangements(subject: Subject) -> Mapping[str, Run]:
    """What must not change a token; a model that caches no prefix has fewer of them.

    Requests alone or mixed; prompts in chunks of a block; pages of three blocks; commits and openings
    in forwards of their own; prefixes read from the cache; everything recomputed at every step.
    """
    family = subject.engine().model.family
    block, runs = subject.oracle.block_length, dict[str, Run]()
    runs["alone"] = lambda requests: run_requests(subject.engine(slots=1), requests)
    runs["mixed"] = lambda requests: run_requests(subject.engine(), requests)
    if family.layout.shares_prefix:
        runs["chunks"] = lambda requests: run_requests(subject.engine(refresh_tokens=block), requests)
        runs["pages"] = lambda requests: run_requests(subject.engine(page_blocks=3), requests)
        runs["commits"] = lambda requests: run_requests(subject.engine(fuse_commits=False), requests)
        runs["cached"] = lambda requests: _run_twice(subject.engine(), requests)
    if "rebuild_every" in family.options and not subject.edits:
        runs["rebuilt"] = lambda requests: run_requests(
            subject.engine(partial=True), _rebuilding(requests, 1)
        )
    return runs


def _run_twice(engine: Engine, requests: Sequence[Request]) -> dict[str, Generation]:
    run_requests(engine, requests)
    return run_requests(engine, requests)


def _rebuilding(requests: Sequence[Request], period: int) -> list[Request]:
    return [
        replace(request, diffusion=replace(request.diffusion, rebuild_every=period)) for request in requests
    ]


def _compare_logits(subject: Subject) -> Result:
    """Encoded blocks and a canvas; of a model whose encoder has no head, the canvas alone."""
    error, rows, block = 0.0, 0, subject.oracle.block_length
    for blocks, page_blocks, chunk in ((2, 1, None), (5, 2, block), (7, 3, None)):
        tokens = random_tokens(Random(blocks), blocks * block)
        found = engine_logits(subject.engine(page_blocks=page_blocks), tokens, chunk)
        expected = subject.oracle.logits(tokens)
        error = max(error, float((found[-len(expected) :] - expected).abs().max()))
        rows += len(expected)
    return Result(subject.name, "logits", tokens=rows, max_error=error)


def _compare_generations(
    family: str, check: str, expected: Mapping[str, Generation], found: Mapping[str, Generation]
) -> Result:
    return Result(
        family,
        check,
        requests=len(expected),
        stopped=sum(generation.finish is FinishReason.STOP for generation in expected.values()),
        tokens=sum(len(generation.tokens) for generation in expected.values()),
        different=sum(found.get(name) != generation for name, generation in expected.items()),
    )


def print_results(console: Console, results: Sequence[Result]) -> None:
    """A line per family, a column per check: the logits' largest error, then how many tokens are equal."""
    checks = list(dict.fromkeys(result.check for result in results))
    found = {(result.family, result.check): result for result in results}
    table = Table(box=SIMPLE, padding=0, pad_edge=False, title="Largest error of logits; equal tokens")
    for heading in ("", *checks):
        table.add_column(heading, no_wrap=True)
    for family in dict.fromkeys(result.family for result in results):
        table.add_row(family, *(_cell(found.get((family, check))) for check in checks))
    console.print(table)


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    good = f"{result.tokens}" if result.requests else f"{result.max_error:.1e}"
    bad = f"{result.different} differ" if result.requests else good
    return good if result.passed else f"[bold red]{bad}[/]"


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    transformers.logging.disable_progress_bar()
    console = Console()
    setup = describe_setup("tiny random checkpoints", "float32", options.threads)
    print_setup(console, setup)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, console.status("") as status:
        for subject in subjects(Path(folder), options.prompts):
            status.update(subject.name)
            results += compare(subject)
    print_results(console, results)
    versions = {"transformers": transformers.__version__, "logits_tolerance": LOGITS_TOLERANCE}
    write_json(options.out, setup, {**versions, "results": [asdict(result) for result in results]})
    failed = sum(not result.passed for result in results)
    console.print(f"{len(results) - failed} of {len(results)} checks passed")
    sys.exit(1 if failed else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.parity", description=__doc__)
    parser.add_argument("--prompts", type=int, default=24, help="requests of each family")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench/results/parity.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
