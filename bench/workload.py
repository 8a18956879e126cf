"""The work that benchmarks do: demo tasks, the same ones for every variant of a round."""

import random
from dataclasses import dataclass, replace

from easel.demo.tasks import Task, TaskName, generate
from easel.demo.tokenizer import encode_prompt
from easel.scheduler.request import Request, SamplingParams
from easel.worker.model_info import ModelInfo


@dataclass(frozen=True, slots=True)
class Job:
    """One task with the request that asks for its answer."""

    task: Task
    request: Request


def demo_jobs(model: ModelInfo, count: int, seed: int) -> list[Job]:
    """`count` held-out tasks, all kinds in turn, greedy, with the model's default commit rule."""
    rng = random.Random(seed)
    kinds = list(TaskName)
    tasks = [generate(rng, kinds[index % len(kinds)], held_out=True) for index in range(count)]
    return [Job(task, _request(model, task, f"{seed}-{index}")) for index, task in enumerate(tasks)]


def _request(model: ModelInfo, task: Task, request_id: str) -> Request:
    return Request(
        request_id=request_id,
        prompt=tuple(encode_prompt(task.prompt)),
        sampling=SamplingParams(max_tokens=min(128, model.max_output_tokens)),
        diffusion=replace(model.diffusion),
    )
