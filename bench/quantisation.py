"""What FP8 weights cost in accuracy: `python -m easel.bench.quantisation`.

The demo model answers held-out tasks with its own weights (bfloat16, computed in float32), and with
weights rounded to FP8: a scale for each channel or for each block of 128 x 128, activations as they
are (what a device without FP8 computes) or rounded too (what a GPU computes, here step by step).
Beside right answers it compares the distributions over tokens at a canvas's first step, and the
outputs of the model's own matrices for normal inputs.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from easel.bench.oracles.float8 import Float8Format, write_float8
from easel.bench.oracles.masked import Generation
from easel.bench.oracles.passes import engine_logits, run_requests
from easel.bench.report import describe_setup, print_setup, write_json
from easel.demo.scoring import held_out
from easel.demo.tasks import Task, TaskName, check
from easel.demo.tokenizer import decode, encode_prompt
from easel.kernels.linear import linear
from easel.scheduler.request import Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine
from easel.worker.models.registry import definition_of
from easel.worker.parameters import weight_of
from easel.worker.sketch import sketch_directory
from easel.worker.storage import Storage
from easel.worker.weights import load_parameters

CPU = torch.device("cpu")
TOKENS = 256  # of the inputs that matrices are multiplied with


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to hold the matrices."""

    name: str
    build: Callable[[], Engine]
    weights: Callable[[], dict[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a variant compares with the exact weights."""

    right: float  # share of tasks whose answer is right
    same_answers: float  # share of tasks with the very tokens of the exact weights
    steps_per_block: float
    kl: float  # nats from the exact distribution, mean over masked positions
    same_argmax: float  # share of masked positions
    mean_error: float  # of outputs: norms against the exact ones', mean over the model's matrices
    most_error: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What one variant says."""

    generations: list[Generation]
    logits: Tensor  # [masked positions, vocabulary]
    outputs: dict[str, Tensor]  # by matrix [tokens, out]


def variants(path: Path, folder: Path) -> list[Variant]:
    """The exact weights, then each way to round them with and without rounded activations."""
    blocks = folder / "blocks"
    write_float8(path, Float8Format.TRANSFORMERS_BLOCKS, published=blocks, meant=folder / "meant")
    found = [_variant("exact", path, Storage())]
    for name, source, quantise in (("channels", path, True), ("blocks", blocks, False)):
        for float8 in (False, True):
            storage = Storage(quantise=quantise, float8=float8)
            found.append(_variant(f"{name} + activations" if float8 else name, source, storage))
    return found


def _variant(name: str, path: Path, storage: Storage) -> Variant:
    sketch = sketch_directory(path)

    def weights() -> dict[str, Tensor]:
        return load_parameters(path, sketch.loaded(storage), torch.float32, CPU)

    def build() -> Engine:
        """Kept in FP8 a model is slow on a CPU, so an engine does not choose it by itself."""
        engine = load_engine(path, EngineConfig(slots=16, dtype="float32"))
        model = definition_of(sketch.info.architecture).build(sketch.dimensions, weights())
        engine.runner.machine = replace(engine.runner.machine, model=model)
        return engine

    return Variant(name, build, weights)


def answers(variant: Variant, tasks: Sequence[Task]) -> Answers:
    """Greedy answers, logits of first steps, and outputs for the same inputs."""
    engine = variant.build()
    sampling = SamplingParams(max_tokens=engine.model.max_output_tokens)
    prompts = [tuple(encode_prompt(task.prompt)) for task in tasks]
    requests = [
        Request(str(index), prompt, sampling, engine.model.diffusion) for index, prompt in enumerate(prompts)
    ]
    logits = torch.cat([_first_step(engine, prompt) for prompt in prompts])
    made = run_requests(engine, requests)
    return Answers([made[str(index)] for index in range(len(tasks))], logits, _outputs(variant.weights()))


def outcome(found: Answers, exact: Answers, tasks: Sequence[Task]) -> Outcome:
    made = list(zip(tasks, found.generations, exact.generations, strict=True))
    right = [check(task.prompt, decode(_tokens(mine))) for task, mine, _ in made]
    steps = [step for mine in found.generations for step in mine.steps]
    log_p, log_q = (answer.logits.log_softmax(-1) for answer in (exact, found))
    errors = [
        float((output - exact.outputs[name]).norm() / exact.outputs[name].norm())
        for name, output in found.outputs.items()
    ]
    return Outcome(
        right=sum(right) / len(right),
        same_answers=sum(mine.blocks == theirs.blocks for _, mine, theirs in made) / len(made),
        steps_per_block=sum(steps) / len(steps),
        kl=float((log_p.exp() * (log_p - log_q)).sum(-1).mean()),
        same_argmax=float((log_p.argmax(-1) == log_q.argmax(-1)).float().mean()),
        mean_error=sum(errors) / len(errors),
        most_error=max(errors),
    )


def _first_step(engine: Engine, prompt: tuple[int, ...]) -> Tensor:
    """Logits [masked, vocabulary] of a canvas that begins with the prompt's last, unfinished block."""
    masked = engine.shape.block_length - len(prompt) % engine.shape.block_length
    return engine_logits(engine, (*prompt, *[engine.model.mask_token_id] * masked))[-masked:]


def _outputs(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of every matrix of the layers, for the same normal inputs."""
    found: dict[str, Tensor] = {}
    for name in parameters:
        if name.rpartition(".")[2] in ("qkv", "out", "gate_up", "down"):
            weight = weight_of(parameters, name)
            generator = torch.Generator().manual_seed(0)
            found[name] = linear(torch.randn(TOKENS, weight.shape[1], generator=generator), weight)
    return found


def _tokens(generation: Generation) -> list[int]:
    return [token for block in generation.blocks for token in block]


def print_results(console: Console, results: dict[str, Outcome]) -> None:
    names = ("rounded", "right", "same answer", "steps", "KL, nats", "same argmax", "outputs' error, most")
    table = Table(*names, title="FP8 against the exact weights")
    for name, o in results.items():
        table.add_row(
            name,
            f"{o.right:.1%}",
            f"{o.same_answers:.1%}",
            f"{o.steps_per_block:.2f}",
            f"{o.kl:.2e}",
            f"{o.same_argmax:.2%}",
            f"{o.mean_error:.2%}, {o.most_error:.2%}",
        )
    console.print(table)


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    console = Console()
    setup = describe_setup(options.model.name, "float32", options.threads)
    print_setup(console, setup)
    tasks = [task for kind in TaskName for task in held_out(kind, options.tasks, options.seed)]
    results: dict[str, Outcome] = {}
    with TemporaryDirectory() as folder, Progress(console=console, transient=True) as progress:
        compared = variants(options.model, Path(folder))
        exact = answers(compared[0], tasks)
        for variant in progress.track(compared, description="answering"):
            results[variant.name] = outcome(answers(variant, tasks), exact, tasks)
    print_results(console, results)
    rows = {name: asdict(found) for name, found in results.items()}
    write_json(options.out, setup, {"tasks": len(tasks), "variants": rows})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.quantisation", description=__doc__)
    demo = Path(__file__).parents[1] / "demo" / "checkpoint"
    parser.add_argument("--model", type=Path, default=demo)
    parser.add_argument("--tasks", type=int, default=40, help="of each kind")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench/results/quantisation.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
