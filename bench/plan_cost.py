"""What planning a step and placing a request cost: `python -m easel.bench.plan_cost`.

Microseconds of one thread's processor time, median and 99th percentile, with 10 to 10,000 requests queued.
Composing a step: 64 running canvases of 32 tokens, a third of whose blocks take 3 to 16 steps and the others
17 to 32, and newcomers as requests end; beside it the same with a queue that is sorted anew whenever it
is looked at, and the same without garbage collection. Placing: one decision of the central scheduler over
16 replicas.
"""

import argparse
import gc
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from operator import attrgetter
from pathlib import Path
from random import Random

from rich.console import Console

from easel.bench.report import Figure, describe_setup, figure, print_figures, print_setup, write_json
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterScheduler
from easel.scheduler.life import RequestState
from easel.scheduler.limits import ClusterLimits
from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import BatchPlan, CanvasResult, ReplicaShape, StepResult
from easel.scheduler.queue import RefreshQueue, urgency
from easel.scheduler.request import Request, SamplingParams

QUEUED = (10, 100, 1_000, 10_000)
SHAPE = ReplicaShape(
    slots=64, pages=4096, page_size=32, block_length=32, max_model_tokens=4096, eos_token_ids=frozenset({1})
)
PROMPTS, OUTPUTS = (16, 64, 200, 500), (64, 128, 256, 512)  # tokens; each equally often
REPLICAS = 16
STEP_SECONDS = 0.02
RUN_UP = 300  # steps that are not counted


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of one round, microseconds."""

    p50: float
    p99: float


class SortedQueue(RefreshQueue):
    """The naive queue: all that wait are sorted whenever candidates are asked for."""

    def by_slack(self, limit: int) -> Generator[RequestState, None, None]:
        yield from sorted((entry[2] for entry in self._live.values()), key=urgency)[:limit]


class ScriptedCanvases:
    """Answers plans with canvases that settle after as many steps as their request and block say."""

    def __init__(self) -> None:
        self._canvases: dict[int, tuple[int, int]] = {}  # by slot: steps taken, steps in all

    def run(self, plan: BatchPlan) -> StepResult:
        results: list[CanvasResult] = []
        for row in plan.rows:
            if row.kind.writes_pages:
                continue
            if row.canvas is not None:
                draw = Random(f"{row.request_id}/{row.canvas.block_index}")
                few = draw.random() < 1 / 3
                self._canvases[row.slot] = (0, draw.randint(3, 16) if few else draw.randint(17, 32))
            step, steps = self._canvases[row.slot]
            self._canvases[row.slot] = (step + 1, steps)
            done = step + 1 == steps
            block = tuple(range(10, 10 + SHAPE.block_length)) if done else ()
            entropy = 2.0 * (1.0 - step / steps)
            results.append(CanvasResult(row.request_id, row.slot, done, step + 1, 0, entropy, block))
        return StepResult(tuple(results), STEP_SECONDS)


def requests() -> Iterator[Request]:
    """A chat mix without end; every prompt is a new one."""
    for number in count():
        draw = Random(number)
        prompt = tuple(draw.choices(range(10, 1000), k=draw.choice(PROMPTS)))
        yield Request(f"r{number}", prompt, SamplingParams(max_tokens=draw.choice(OUTPUTS)))


def compose_round(queued: int, steps: int, queue: RefreshQueue) -> tuple[Percentiles, Percentiles]:
    """What `plan` and `apply` take with so many waiting all the time, after a run-up."""
    scheduler, canvases, source = LocalScheduler(SHAPE, queue=queue), ScriptedCanvases(), requests()
    for _ in range(SHAPE.slots + queued):
        scheduler.submit(next(source), 0.0)
    planning: list[float] = []
    applying: list[float] = []
    now = 0.0
    for _ in range(steps + RUN_UP):
        started = time.thread_time()
        plan = scheduler.plan(now)
        planning.append(time.thread_time() - started)
        if plan is None:
            break
        result = canvases.run(plan)
        now += result.seconds
        started = time.thread_time()
        events = scheduler.apply(plan, result, now)
        applying.append(time.thread_time() - started)
        for event in events:
            if event.finish is not None:
                scheduler.submit(next(source), now)
    return percentiles(planning[RUN_UP:]), percentiles(applying[RUN_UP:])


def placement_round(queued: int, decisions: int) -> Percentiles:
    """What one decision takes: a request ends somewhere, and one that waits gets its place."""
    scheduler = ClusterScheduler(ClusterLimits(max_waiting=1 << 20, queue_ahead=0), Random(0))
    for index in range(REPLICAS):
        scheduler.on_digest(LocalScheduler(SHAPE).digest(f"replica{index}", 1), 0.0)
    draw, numbers, running = Random(1), count(), list[str]()
    for _ in range(REPLICAS * SHAPE.slots + queued):
        scheduler.admit(_ticket(next(numbers)), 0.0)
    running += [assignment.request_id for assignment in scheduler.dispatch(0.0)]
    taken: list[float] = []
    for _ in range(decisions):
        scheduler.finished(running.pop(draw.randrange(len(running))))
        started = time.thread_time()
        assignments = scheduler.dispatch(0.0)
        taken.append(time.thread_time() - started)
        running += [assignment.request_id for assignment in assignments]
        scheduler.admit(_ticket(next(numbers)), 0.0)
    return percentiles(taken)


def _ticket(number: int) -> AdmissionTicket:
    draw = Random(number)
    return AdmissionTicket(
        f"r{number}", draw.choice(PROMPTS), draw.choice(OUTPUTS), tenant=f"tenant{number % 8}"
    )


def percentiles(seconds: list[float]) -> Percentiles:
    ordered = sorted(seconds)
    return Percentiles(1e6 * ordered[len(ordered) // 2], 1e6 * ordered[int(0.99 * len(ordered))])


@contextmanager
def without_collection() -> Generator[None, None, None]:
    """No garbage collection inside."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(queued: int, steps: int) -> dict[str, Percentiles]:
    """One round of everything at one length of the queue."""
    gc.collect()
    compose, applied = compose_round(queued, steps, RefreshQueue())
    with without_collection():
        uncollected, _ = compose_round(queued, steps, RefreshQueue())
    naive, _ = compose_round(queued, max(1, steps // 4), SortedQueue())
    return {
        "compose": compose,
        "compose, no gc": uncollected,
        "compose, sorted": naive,
        "apply": applied,
        "placement": placement_round(queued, steps),
    }


def figures_of(rounds: list[dict[str, Percentiles]], of: Callable[[Percentiles], float]) -> dict[str, Figure]:
    """Every variant's percentile over the rounds."""
    return {name: figure([of(each[name]) for each in rounds]) for name in rounds[0]}


def main() -> None:
    options = _options()
    console = Console()
    setup = describe_setup("none", "none", 1)
    print_setup(console, setup)
    # The lengths alternate, so that drift of the machine touches all alike.
    measured: dict[int, list[dict[str, Percentiles]]] = {queued: [] for queued in QUEUED}
    for _ in range(options.rounds):
        for queued in QUEUED:
            measured[queued].append(measure(queued, options.steps))
    results: dict[str, object] = {"unit": "us", "steps": options.steps, "clock_us": clock_cost()}
    for name in ("p50", "p99"):
        rows = {f"{queued:,} queued": figures_of(measured[queued], attrgetter(name)) for queued in QUEUED}
        print_figures(console, f"A step's plan and a placement, {name}", "us", rows, places=0)
        results[name] = {case: {k: asdict(v) for k, v in row.items()} for case, row in rows.items()}
    write_json(options.out, setup, results)


def clock_cost() -> float:
    """Microseconds that reading the clock adds to every figure."""
    readings = 10_000
    started = time.thread_time()
    for _ in range(readings):
        time.thread_time()
    return 1e6 * (time.thread_time() - started) / readings


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.plan_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("bench/results/plan_cost.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
