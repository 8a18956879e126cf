"""The tasks and their checkers."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from easel.demo.tasks import ADD_DIGITS, Difficulty, TaskName, check, generate, is_held_out
from easel.demo.tokenizer import PRINTABLE


@pytest.mark.parametrize("name", TaskName)
def test_the_generated_answer_passes_its_own_check(name: TaskName) -> None:
    rng = random.Random(1)
    tasks = [generate(rng, name) for _ in range(50)]
    assert all(check(task.prompt, task.answer) for task in tasks)
    assert all(set(task.prompt + task.answer) <= set(PRINTABLE) for task in tasks)


@pytest.mark.parametrize("name", TaskName)
def test_an_answer_with_one_character_changed_or_missing_fails(name: TaskName) -> None:
    rng = random.Random(2)
    for _ in range(30):
        task = generate(rng, name)
        place = rng.randrange(len(task.answer))
        other = "1" if task.answer[place] != "1" else "2"
        assert not check(task.prompt, task.answer[:place] + other + task.answer[place + 1 :])
        assert not check(task.prompt, task.answer[:-1])


@pytest.mark.parametrize("name", TaskName)
def test_the_same_seed_gives_the_same_task(name: TaskName) -> None:
    assert generate(random.Random(7), name) == generate(random.Random(7), name)


@pytest.mark.parametrize("held_out", [True, False])
def test_training_and_held_out_prompts_never_meet(held_out: bool) -> None:
    rng = random.Random(3)
    prompts = [generate(rng, TaskName.COUNT, held_out=held_out).prompt for _ in range(100)]
    assert all(is_held_out(prompt) == held_out for prompt in prompts)


def test_operands_are_padded_to_one_width_and_the_sum_to_one_more() -> None:
    rng = random.Random(4)
    for _ in range(50):
        task = generate(rng, TaskName.ADD)
        left, right = task.prompt.removeprefix("add ").split("+")
        assert len(left) == len(right) == len(task.answer) - 1
        assert ADD_DIGITS[0] <= len(left) <= ADD_DIGITS[1]


def test_a_biased_addition_has_longer_carry_chains() -> None:
    def nines(carry_bias: float) -> int:
        rng, total = random.Random(5), 0
        for _ in range(100):
            task = generate(rng, TaskName.ADD, Difficulty(carry_bias=carry_bias))
            left, right = task.prompt.removeprefix("add ").split("+")
            total += sum(int(a) + int(b) == 9 for a, b in zip(left, right, strict=True))
        return total

    assert nines(1.0) > 2 * nines(0.0)


def test_a_sudoku_answer_must_keep_the_clues() -> None:
    puzzle = "sudoku 1.3./..21/.1../4..2"
    solved, relabelled = "1234/3421/2143/4312", "2134/3421/1243/4312"
    assert check(puzzle, solved)
    assert not check(puzzle, relabelled)


def test_a_count_never_leaves_its_digits() -> None:
    rng = random.Random(6)
    for _ in range(50):
        terms = [int(term) for term in generate(rng, TaskName.COUNT).answer.split(",")]
        assert len({b - a for a, b in pairwise(terms)}) == 1
        assert terms[-1] <= 999


@pytest.mark.parametrize("prompt", ["", "hello", "add 1+", "sort ABC", "count 5 by 10"])
def test_a_prompt_of_no_known_form_has_no_right_answer(prompt: str) -> None:
    assert not check(prompt, "")
