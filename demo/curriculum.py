"""Which tasks a training step sees, and how hard they are."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from easel.demo.packing import Batch, Sample, lay_out, lay_out_block, pack
from easel.demo.tasks import CARRY_BIAS, Difficulty, Task, TaskName, generate
from easel.demo.tokenizer import encode, encode_prompt

TASK_INDEX = {name: index for index, name in enumerate(TaskName)}
ROWS_PER_WORKER = 12


@dataclass(frozen=True, slots=True)
class Portion:
    """So many samples of a task, and the weight of one of their tokens in the loss."""

    name: TaskName
    samples: int
    weight: float


@dataclass(frozen=True, slots=True)
class Stage:
    """From `first_step` on: the samples in one worker's part of a step, and their difficulty."""

    first_step: int
    portions: tuple[Portion, ...]
    difficulty: Difficulty


def _difficulty(add_digits: tuple[int, int], sudoku6_blanks: tuple[int, int]) -> Difficulty:
    return Difficulty(
        add_digits=add_digits,
        sudoku4_blanks=(3, 11),
        sudoku6_blanks=sudoku6_blanks,
        carry_bias=CARRY_BIAS,
    )


SUDOKU_FIRST = (
    Portion(TaskName.SUDOKU6, 6, 1.0),
    Portion(TaskName.SUDOKU4, 2, 1.0),
    Portion(TaskName.COUNT, 1, 0.7),
    Portion(TaskName.ADD, 10, 2.0),
    Portion(TaskName.SORT, 6, 1.0),
)
ADDITION_MOST = (
    Portion(TaskName.SUDOKU6, 3, 1.0),
    Portion(TaskName.SUDOKU4, 1, 1.0),
    Portion(TaskName.COUNT, 4, 0.7),
    Portion(TaskName.ADD, 15, 2.0),
    Portion(TaskName.SORT, 8, 1.0),
)
STRINGS_MOST = (
    Portion(TaskName.SUDOKU6, 2, 1.0),
    Portion(TaskName.SUDOKU4, 1, 1.0),
    Portion(TaskName.COUNT, 4, 0.7),
    Portion(TaskName.ADD, 15, 2.0),
    Portion(TaskName.SORT, 12, 1.0),
)
ARITHMETIC_MOST = (
    Portion(TaskName.SUDOKU6, 2, 1.0),
    Portion(TaskName.SUDOKU4, 1, 1.0),
    Portion(TaskName.COUNT, 5, 2.0),
    Portion(TaskName.ADD, 18, 2.0),
    Portion(TaskName.SORT, 6, 1.0),
)
COUNTING_MOST = (
    Portion(TaskName.SUDOKU6, 3, 1.0),
    Portion(TaskName.SUDOKU4, 1, 1.0),
    Portion(TaskName.COUNT, 8, 1.5),
    Portion(TaskName.ADD, 7, 2.0),
    Portion(TaskName.SORT, 6, 1.5),
)
BALANCED = (
    Portion(TaskName.SUDOKU6, 2, 1.0),
    Portion(TaskName.SUDOKU4, 4, 1.0),
    Portion(TaskName.COUNT, 6, 1.5),
    Portion(TaskName.ADD, 5, 2.0),
    Portion(TaskName.SORT, 8, 2.0),
)
COUNTING_NEARLY_ALL = (
    Portion(TaskName.SUDOKU6, 2, 1.0),
    Portion(TaskName.SUDOKU4, 1, 1.0),
    Portion(TaskName.COUNT, 12, 2.0),
    Portion(TaskName.ADD, 3, 2.0),
    Portion(TaskName.SORT, 4, 2.0),
)
FINISH = (
    Portion(TaskName.SUDOKU6, 3, 1.0),
    Portion(TaskName.SUDOKU4, 2, 1.5),
    Portion(TaskName.COUNT, 7, 2.0),
    Portion(TaskName.ADD, 4, 2.0),
    Portion(TaskName.SORT, 8, 2.0),
)
# The grids are learned within a few hundred steps; adding two numbers is learned sooner from one
# length, and the other lengths follow from it; counting comes last, and builds on adding.
STAGES = (
    Stage(0, SUDOKU_FIRST, _difficulty((3, 6), (4, 16))),
    Stage(500, ADDITION_MOST, _difficulty((4, 4), (4, 20))),
    Stage(814, STRINGS_MOST, _difficulty((3, 6), (4, 20))),
    Stage(1182, ARITHMETIC_MOST, _difficulty((3, 6), (4, 20))),
    Stage(1639, COUNTING_MOST, _difficulty((3, 6), (4, 20))),
    Stage(2028, BALANCED, _difficulty((3, 6), (4, 20))),
    Stage(2655, COUNTING_NEARLY_ALL, _difficulty((3, 6), (4, 20))),
    Stage(3600, FINISH, _difficulty((3, 6), (4, 20))),
)


def stage_at(step: int) -> Stage:
    return max((stage for stage in STAGES if stage.first_step <= step), key=lambda stage: stage.first_step)


def batch_of_step(seed: int, step: int, rank: int) -> Batch:
    """The same batch for the same seed, step and worker, so a resumed run is the same run."""
    rng = random.Random(f"{seed}/{step}/{rank}")
    stage = stage_at(step)
    samples = [
        sample_of(generate(rng, portion.name, stage.difficulty), portion.weight, rng)
        for portion in stage.portions
        for _ in range(portion.samples)
    ]
    return pack(samples, ROWS_PER_WORKER, np.random.default_rng((seed, step, rank)))


def sample_of(task: Task, weight: float, rng: random.Random) -> Sample:
    prompt, answer = encode_prompt(task.prompt), encode(task.answer)
    index = TASK_INDEX[task.name]
    if task.name is TaskName.COUNT:
        return lay_out_block(prompt, answer, index, weight, rng.random())
    return lay_out(prompt, answer, index, weight)
