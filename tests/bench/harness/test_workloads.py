import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median

import pytest

from easel.bench.harness.errors import WrongOption
from easel.bench.harness.lengths import Length, Measure, measure_of, parse_length, prose
from easel.bench.harness.workloads import (
    Chats,
    Conversation,
    LongPrompts,
    Prose,
    Questions,
    Workload,
    known_questions,
    read_prompts,
)

CHARACTERS = Measure(template=2.0, per_character=1.0)
SHORT, OUTPUT = Length("uniform", (10, 20)), Length("fixed", (64,))


def conversations(workload: Workload, count: int, seed: int = 0) -> list[Conversation]:
    return [workload.conversation(number, Random(f"{seed}/{number}"), CHARACTERS) for number in range(count)]


def said(conversation: Conversation) -> Sequence[str]:
    return [message["content"] for turn in conversation.turns for message in turn.messages]


@pytest.mark.parametrize(
    "workload",
    [
        Questions(),
        Prose(SHORT, OUTPUT),
        LongPrompts(SHORT, SHORT, OUTPUT),
        Chats(3, 50, SHORT, OUTPUT, 0.0, 0),
    ],
)
def test_a_seed_repeats_what_is_asked(workload: Workload) -> None:
    assert conversations(workload, 8) == conversations(workload, 8)
    assert conversations(workload, 8) != conversations(workload, 8, seed=1)


def test_the_demos_questions_come_with_their_answers_and_their_kind() -> None:
    answers = {question.prompt: question.answer for question in known_questions()}
    for conversation in conversations(Questions(), 40):
        (turn,) = conversation.turns
        (message,) = turn.messages
        assert turn.answer == answers[message["content"]]
        assert turn.label in {"add", "sort", "sudoku", "count"}


def test_prompts_are_as_many_tokens_long_as_asked() -> None:
    for conversation in conversations(Prose(SHORT, OUTPUT), 40):
        (text,) = said(conversation)
        assert 10 <= len(text) + CHARACTERS.template <= 20
        assert conversation.turns[0].max_tokens == 64


def test_every_eighth_prompt_is_a_long_one() -> None:
    found = conversations(LongPrompts(SHORT, Length("fixed", (500,)), OUTPUT), 16)
    assert [one.turns[0].label for one in found].count("long") == 2
    assert [len(said(one)[0]) > 400 for one in found] == [one.turns[0].label == "long" for one in found]


def test_chats_share_a_system_prompt_and_nothing_else() -> None:
    first, second = conversations(Chats(3, 100, SHORT, OUTPUT, 0.5, 0), 2)
    assert said(first)[0] == said(second)[0]
    assert len(said(first)[0]) == 98
    assert set(said(first)[1:]).isdisjoint(said(second)[1:])
    assert [turn.messages[0]["role"] for turn in first.turns] == ["system", "user", "user"]
    assert [turn.label for turn in first.turns] == ["turn 1", "turn 2", "turn 3"]


def test_a_file_of_prompts_is_asked_in_turn(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    lines = [{"prompt": "2+2", "answer": "4", "label": "sum"}, {"messages": chat, "max_tokens": 7}]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    first, second, third = (one.turns[0] for one in conversations(read_prompts(file, 99), 3))
    assert (first.answer, first.label, first.max_tokens) == ("4", "sum", 99)
    assert (list(second.messages), second.max_tokens) == (chat, 7)
    assert third == first


@pytest.mark.parametrize("text", ["", "x", '{"answer": "4"}', "[1]"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(WrongOption, match=r"prompts\.jsonl"):
        read_prompts(file, None)


def test_lengths_are_drawn_from_their_distribution() -> None:
    rng = Random(3)
    assert {parse_length("--x", "7").draw(rng) for _ in range(9)} == {7}
    assert {parse_length("--x", "uniform:3:5").draw(rng) for _ in range(99)} == {3, 4, 5}
    drawn = [parse_length("--x", "lognormal:100:0.5").draw(rng) for _ in range(5000)]
    assert median(drawn) == pytest.approx(100, rel=0.05)
    assert max(drawn) > 300


@pytest.mark.parametrize("text", ["", "0", "-3", "uniform:5:3", "uniform:5", "normal:3:4", "lognormal:0.5:1"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(WrongOption, match="--prompt-tokens"):
        parse_length("--prompt-tokens", text)


@pytest.mark.parametrize(("template", "per_character"), [(2.0, 1.0), (12.0, 0.25)])
def test_two_prompts_measure_a_tokenizer(template: float, per_character: float) -> None:
    found = measure_of([(size, round(template + per_character * size)) for size in (40, 240)])
    assert (found.template, found.per_character) == pytest.approx((template, per_character))
    assert template + per_character * found.characters(100) == pytest.approx(100, abs=1)


def test_an_impossible_measure_is_not_believed() -> None:
    assert measure_of([(40, 50), (240, 50)]) == Measure()


@pytest.mark.parametrize("length", [1, 7, 300])
def test_prose_is_as_long_as_asked(length: int) -> None:
    assert len(prose(Random(0), length)) == length
