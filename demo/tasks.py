"""The tasks the demo model is trained on, each with a checker that knows the rule.

Every task is drawn from a seeded `random.Random`. A prompt belongs to the held-out
split when its checksum says so; training never draws one of those, evaluation only those.
"""

from __future__ import annotations

import random
import re
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from easel.demo.sudoku import FOUR, SIX, Sudoku

HELD_OUT_ONE_IN = 16
ADD_DIGITS = (3, 6)
SORT_LETTERS = (4, 12)
SUDOKU4_BLANKS = (4, 9)
SUDOKU6_BLANKS = (8, 14)
COUNT_TERMS = 22
COUNT_DIGITS = 3
CARRY_BIAS = 0.6

SUDOKU4 = Sudoku(FOUR)
SUDOKU6 = Sudoku(SIX)


class TaskName(StrEnum):
    ADD = "add"
    SORT = "sort"
    SUDOKU4 = "sudoku4"
    SUDOKU6 = "sudoku6"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Task:
    name: TaskName
    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Difficulty:
    """Inclusive ranges; the defaults are what evaluation uses.

    `carry_bias` is the probability that a column of an addition is made to sum to 9,
    so that training sees long carry chains; evaluation keeps it at 0, the natural distribution.
    """

    add_digits: tuple[int, int] = ADD_DIGITS
    sort_letters: tuple[int, int] = SORT_LETTERS
    sudoku4_blanks: tuple[int, int] = SUDOKU4_BLANKS
    sudoku6_blanks: tuple[int, int] = SUDOKU6_BLANKS
    carry_bias: float = 0.0


def generate(
    rng: random.Random, name: TaskName, difficulty: Difficulty | None = None, *, held_out: bool = False
) -> Task:
    """One task of this kind, from the training split or the held-out one."""
    difficulty = difficulty or Difficulty()
    while True:
        task = GENERATORS[name](rng, difficulty)
        if is_held_out(task.prompt) == held_out:
            return task


def is_held_out(prompt: str) -> bool:
    return zlib.crc32(prompt.encode()) % HELD_OUT_ONE_IN == 0


def check(prompt: str, text: str) -> bool:
    """Whether `text` answers `prompt`; any prompt that is not of a known form is answered wrongly."""
    for pattern, checker in CHECKERS:
        match = pattern.fullmatch(prompt)
        if match is not None:
            return checker(match, text)
    return False


def _add(rng: random.Random, difficulty: Difficulty) -> Task:
    digits = rng.randint(*difficulty.add_digits)
    biased = rng.random() < difficulty.carry_bias
    pairs = [(rng.randrange(10), rng.randrange(10)) for _ in range(digits)]
    if biased:
        pairs = [(a, 9 - a) if rng.random() < difficulty.carry_bias else (a, b) for a, b in pairs]
    left, right = ("".join(str(pair[side]) for pair in pairs) for side in (0, 1))
    return Task(TaskName.ADD, f"add {left}+{right}", f"{int(left) + int(right):0{digits + 1}d}")


def _sort(rng: random.Random, difficulty: Difficulty) -> Task:
    letters = rng.choices(string.ascii_lowercase, k=rng.randint(*difficulty.sort_letters))
    return Task(TaskName.SORT, "sort " + "".join(letters), "".join(sorted(letters)))


def _sudoku4(rng: random.Random, difficulty: Difficulty) -> Task:
    return _sudoku(TaskName.SUDOKU4, SUDOKU4, rng, difficulty.sudoku4_blanks)


def _sudoku6(rng: random.Random, difficulty: Difficulty) -> Task:
    return _sudoku(TaskName.SUDOKU6, SUDOKU6, rng, difficulty.sudoku6_blanks)


def _sudoku(name: TaskName, sudoku: Sudoku, rng: random.Random, blanks: tuple[int, int]) -> Task:
    solution = sudoku.random_grid(rng)
    puzzle = sudoku.puzzle(solution, rng.randint(*blanks), rng)
    return Task(name, "sudoku " + sudoku.render(puzzle), sudoku.render(solution))


def _count(rng: random.Random, _difficulty: Difficulty) -> Task:
    step = rng.randint(1, 9)
    start = rng.randint(0, 10**COUNT_DIGITS - 1 - step * (COUNT_TERMS - 1))
    return Task(TaskName.COUNT, f"count {start:0{COUNT_DIGITS}d} by {step}", _progression(start, step))


def _progression(start: int, step: int) -> str:
    return ",".join(f"{start + step * i:0{COUNT_DIGITS}d}" for i in range(COUNT_TERMS))


def _check_add(match: re.Match[str], text: str) -> bool:
    left, right = match.groups()
    width = max(len(left), len(right)) + 1
    return re.fullmatch(r"[0-9]+", text) is not None and text == str(int(left) + int(right)).zfill(width)


def _check_sort(match: re.Match[str], text: str) -> bool:
    return text == "".join(sorted(match[1]))


def _check_sudoku(match: re.Match[str], text: str) -> bool:
    for sudoku in (SUDOKU4, SUDOKU6):
        clues, grid = sudoku.parse(match[1]), sudoku.parse(text)
        if clues is not None and grid is not None:
            kept = all(clue in (0, cell) for clue, cell in zip(clues, grid, strict=True))
            return kept and sudoku.is_solved(grid)
    return False


def _check_count(match: re.Match[str], text: str) -> bool:
    return text == _progression(int(match[1]), int(match[2]))


GENERATORS: dict[TaskName, Callable[[random.Random, Difficulty], Task]] = {
    TaskName.ADD: _add,
    TaskName.SORT: _sort,
    TaskName.SUDOKU4: _sudoku4,
    TaskName.SUDOKU6: _sudoku6,
    TaskName.COUNT: _count,
}
CHECKERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], bool]], ...] = (
    (re.compile(r"add ([0-9]+)\+([0-9]+)"), _check_add),
    (re.compile(r"sort ([a-z]+)"), _check_sort),
    (re.compile(r"sudoku ([1-6./]+)"), _check_sudoku),
    (re.compile(r"count ([0-9]+) by ([0-9])"), _check_count),
)
