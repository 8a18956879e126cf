"""How well a model answers held-out tasks, by the plain reference loop."""

from __future__ import annotations

import random
from collections import defaultdict

import torch

from easel.demo.packing import BLOCK_LENGTH
from easel.demo.reference_loop import Forward, Generation, LoopSettings, generate
from easel.demo.tasks import Task, TaskName, check
from easel.demo.tasks import generate as generate_task
from easel.demo.tokenizer import EOS, MASK, VOCABULARY, decode, encode_prompt


def loop_settings(threshold: float = 0.9) -> LoopSettings:
    return LoopSettings(VOCABULARY[MASK], VOCABULARY[EOS], BLOCK_LENGTH, threshold)


def held_out(name: TaskName, count: int, seed: int) -> list[Task]:
    rng = random.Random(f"held-out/{seed}/{name}")
    return [generate_task(rng, name, held_out=True) for _ in range(count)]


def answer(forward: Forward, tasks: list[Task], settings: LoopSettings) -> list[tuple[Task, Generation]]:
    """Every task with its generation; prompts of one length share their forwards."""
    by_length: dict[int, list[Task]] = defaultdict(list)
    for task in tasks:
        by_length[len(task.prompt)].append(task)
    answered: list[tuple[Task, Generation]] = []
    for group in by_length.values():
        prompts = torch.tensor([encode_prompt(task.prompt) for task in group])
        answered += zip(group, generate(forward, prompts, settings), strict=True)
    return answered


def score_all(forward: Forward, count: int, seed: int, threshold: float = 0.9) -> dict[str, float]:
    """Per task, the share answered right and the mean steps of a block."""
    figures: dict[str, float] = {}
    for name in TaskName:
        answered = answer(forward, held_out(name, count, seed), loop_settings(threshold))
        right = [check(task.prompt, decode(made.tokens)) for task, made in answered]
        steps = [step for _, made in answered for step in made.steps]
        figures[f"right/{name}"] = sum(right) / count
        figures[f"steps/{name}"] = sum(steps) / len(steps)
    return figures
