"""The judge of the chaos driver notices what it is there to notice."""

import pytest

from tests.chaos.questions import Difference, compare, questions

RIGHT = ("one ", "two ", "three ", "four")


@pytest.mark.parametrize(
    ("got", "difference"),
    [
        (RIGHT, Difference()),
        (("one ", "three ", "four"), Difference(lost=4)),
        (("one ", "two "), Difference(lost=10)),
        ((), Difference(lost=18)),
        (("one ", "two ", "two ", "three ", "four"), Difference(doubled=4)),
        ((*RIGHT, "four"), Difference(doubled=4)),
        (("one ", "2 ", "three ", "four"), Difference(changed=4)),
        (("one ", "two ", "four", "three "), Difference(lost=6, doubled=6)),
    ],
)
def test_a_wrong_answer_is_told_from_the_right_one(got: tuple[str, ...], difference: Difference) -> None:
    assert compare(RIGHT, got) == difference


def test_differences_add_up() -> None:
    assert Difference(1, 2, 3) + Difference(10, 20, 30) == Difference(11, 22, 33)


def test_a_seed_repeats_its_questions() -> None:
    assert questions(3) == questions(3) != questions(4)


def test_questions_are_greedy_and_sampled_with_one_choice_and_two() -> None:
    asked = questions(1)
    assert {question.temperature > 0 for question in asked} == {True, False}
    assert {question.choices for question in asked} == {1, 2}
