"""The work that benchmarks do: demo tasks, the same ones for every variant of a round."""

import random
import zlib
from dataclasses import dataclass, replace

from easel.demo.tasks import Task, TaskName, generate
from easel.demo.tokenizer import encode_prompt
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.model_info import ModelInfo


@dataclass(frozen=True, slots=True)
class Job:
    """One task with the request that asks for its answer."""

    task: Task
    request: Request


ONE_A_STEP = 1.0  # a threshold that no probability exceeds: each step decides one position


@dataclass(frozen=True, slots=True)
class Case:
    """How many requests at once, and the confidence threshold where it is not the model's own."""

    concurrency: int
    threshold: float | None = None

    @property
    def name(self) -> str:
        rule = "" if self.threshold is None else ", one position a step"
        return f"{self.concurrency} concurrent{rule}"

    def seed(self, round_number: int) -> int:
        """Of the tasks: another one for each case and round, so that no prefix is cached."""
        return zlib.crc32(self.name.encode()) + round_number


def demo_jobs(model: ModelInfo, count: int, seed: int, threshold: float | None = None) -> list[Job]:
    """`count` held-out tasks, all kinds in turn, greedy, by the model's default rule or another threshold."""
    rng = random.Random(seed)
    kinds = list(TaskName)
    tasks = [generate(rng, kinds[index % len(kinds)], held_out=True) for index in range(count)]
    chosen = model.diffusion if threshold is None else replace(model.diffusion, threshold=threshold)
    return [Job(task, _request(model, task, f"{seed}-{index}", chosen)) for index, task in enumerate(tasks)]


def _request(model: ModelInfo, task: Task, request_id: str, diffusion: DiffusionParams) -> Request:
    return Request(
        request_id=request_id,
        prompt=tuple(encode_prompt(task.prompt)),
        sampling=SamplingParams(max_tokens=min(128, model.max_output_tokens)),
        diffusion=diffusion,
    )
