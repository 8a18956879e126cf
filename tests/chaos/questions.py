"""What the load asks, and how an answer is held against the unfaulted one."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from easel.demo.tasks import TaskName
from tests.end_to_end.clients import puzzles

_NOISE = 3.0  # a temperature at which the demo model babbles to its limit
Blocks = tuple[str, ...]  # the text of each block of one choice, in order


@dataclass(frozen=True, slots=True)
class Question:
    """One generation whose answer depends on nothing but itself."""

    prompt: str
    max_tokens: int = 160
    temperature: float = 0.0
    seed: int = 0
    choices: int = 1

    def body(self, model: str) -> dict[str, object]:
        """For POST /v1/chat/completions."""
        return {
            "model": model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "n": self.choices,
        }

    def response_body(self, model: str) -> dict[str, object]:
        """For POST /v1/responses, which knows no choices."""
        return {
            "model": model,
            "input": self.prompt,
            "max_output_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """Characters by which an answer is not what it should be; the demo model's tokens are characters."""

    lost: int = 0
    doubled: int = 0
    changed: int = 0

    def __add__(self, other: "Difference") -> "Difference":
        return Difference(self.lost + other.lost, self.doubled + other.doubled, self.changed + other.changed)

    @property
    def total(self) -> int:
        return self.lost + self.doubled + self.changed


def questions(seed: int, count: int = 36) -> list[Question]:
    """Greedy puzzles, and seeded babble of many blocks with one choice or two."""
    rng = random.Random(f"questions/{seed}")
    tasks = [task for kind in TaskName for task in puzzles(kind, count, seed)]
    asked: list[Question] = []
    for number in range(count):
        prompt = (
            rng.choice(tasks).prompt
            if number % 3
            else f"count {rng.randrange(400):03d} by {rng.randrange(2, 9)}"
        )
        babbles = number % 2 == 1
        asked.append(
            Question(
                prompt,
                max_tokens=rng.choice((120, 200, 300)) if babbles else 160,
                temperature=_NOISE if babbles else 0.0,
                seed=rng.randrange(1 << 30),
                choices=2 if number % 6 == 3 else 1,
            )
        )
    return asked


def compare(expected: Sequence[str], got: Sequence[str]) -> Difference:
    """Block by block: what is missing, what came twice, and what is something else."""
    lost = doubled = changed = at = 0
    for block in got:
        if at < len(expected) and block == expected[at]:
            at += 1
        elif at > 0 and block == expected[at - 1]:
            doubled += len(block)
        elif block in expected[at + 1 :]:
            found = expected.index(block, at + 1)
            lost += sum(map(len, expected[at:found]))
            at = found + 1
        elif at < len(expected):
            changed += max(len(block), len(expected[at]))
            at += 1
        else:
            doubled += len(block)
    return Difference(lost + sum(map(len, expected[at:])), doubled, changed)
