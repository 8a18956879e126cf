"""Runs held-out tasks through the engine and scores the answers by the tasks' own rules."""

from collections.abc import Sequence
from dataclasses import dataclass

from easel.demo.tasks import Task, TaskName, check
from easel.demo.tokenizer import decode, encode_prompt
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.engine import Engine

# Exact match a released checkpoint must reach under the default commit rule.
REQUIRED = {
    TaskName.ADD: 0.95,
    TaskName.SORT: 0.95,
    TaskName.SUDOKU4: 0.95,
    TaskName.SUDOKU6: 0.80,
    TaskName.COUNT: 0.95,
}


@dataclass(frozen=True, slots=True)
class Score:
    """How one kind of task went under one setting."""

    tasks: int
    right: int
    blocks: int
    steps: int

    @property
    def accuracy(self) -> float:
        """Share of answers that are right as a whole."""
        return self.right / self.tasks

    @property
    def steps_per_block(self) -> float:
        return self.steps / self.blocks

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.tasks + other.tasks,
            self.right + other.right,
            self.blocks + other.blocks,
            self.steps + other.steps,
        )


def score(engine: Engine, tasks: Sequence[Task], diffusion: DiffusionParams) -> Score:
    """Answer all tasks greedily, as many at once as the engine has slots."""
    for index, task in enumerate(tasks):
        engine.submit(
            Request(
                request_id=str(index),
                prompt=tuple(encode_prompt(task.prompt)),
                sampling=SamplingParams(max_tokens=engine.model.max_output_tokens),
                diffusion=diffusion,
            )
        )
    answers: list[list[int]] = [[] for _ in tasks]
    blocks = steps = 0
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, BlockEvent):
                answers[int(event.request_id)] += event.tokens
                blocks += 1
                steps += event.steps
    right = sum(check(task.prompt, decode(answer)) for task, answer in zip(tasks, answers, strict=True))
    return Score(len(tasks), right, blocks, steps)
