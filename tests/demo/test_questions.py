import json

from easel.demo.questions import FILE, questions
from easel.demo.tasks import check, is_held_out


def test_the_file_holds_what_the_module_writes() -> None:
    """Its beginning: drawing all of them takes seconds."""
    assert json.loads(FILE.read_text(encoding="utf-8"))[:30] == questions(30)


def test_every_answer_is_right_and_was_not_trained_on() -> None:
    for question in questions(30):
        assert check(question["prompt"], question["answer"])
        assert is_held_out(question["prompt"])
