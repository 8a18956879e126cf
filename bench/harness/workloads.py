"""What is asked: conversations of one turn or more, drawn by number, so that a seed repeats them all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

from easel.bench.harness.errors import WrongOption
from easel.bench.harness.lengths import Length, Measure, prose
from easel.scheduler.trace import RequestTrace

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user says next, and how the answer is judged."""

    messages: tuple[Message, ...]  # added to what has been said
    max_tokens: int | None
    label: str = ""  # figures are also told per label
    answer: str | None = None  # the only right one, where there is one


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that follow each other, each after the answer to the one before."""

    turns: tuple[Turn, ...]
    think_seconds: float = 0.0  # between an answer and the next turn


class Workload(Protocol):
    """A source of conversations."""

    @property
    def measured(self) -> bool:
        """Lengths are in tokens: the server's tokenizer must be measured first."""
        ...

    def conversation(self, number: int, rng: Random, measure: Measure) -> Conversation: ...


def user(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the only right answer."""

    prompt: str
    answer: str


def known_questions() -> tuple[Question, ...]:
    """Those that come with the embedded model."""
    text = (files("easel.demo") / "questions.json").read_text(encoding="utf-8")
    return tuple(Question(**question) for question in json.loads(text))


@dataclass(frozen=True, slots=True)
class Questions:
    """The embedded model's tasks, whose answers are known; the label is the kind of task."""

    max_tokens: int = 128
    questions: Sequence[Question] = field(default_factory=known_questions)
    measured: bool = False

    def conversation(self, number: int, rng: Random, measure: Measure) -> Conversation:
        question = rng.choice(self.questions)
        label = question.prompt.split()[0]
        return Conversation((Turn(user(question.prompt), self.max_tokens, label, question.answer),))


@dataclass(frozen=True, slots=True)
class Prose:
    """Random words; lengths in tokens."""

    prompt: Length
    output: Length
    measured: bool = True

    def conversation(self, number: int, rng: Random, measure: Measure) -> Conversation:
        text = prose(rng, measure.characters(self.prompt.draw(rng)))
        return Conversation((Turn(user(text), self.output.draw(rng)),))


@dataclass(frozen=True, slots=True)
class LongPrompts:
    """Every so many prompts a long one, to see whether it delays the others."""

    prompt: Length
    long: Length
    output: Length
    every: int = 8
    measured: bool = True

    def conversation(self, number: int, rng: Random, measure: Measure) -> Conversation:
        long = number % self.every == self.every - 1
        tokens = (self.long if long else self.prompt).draw(rng)
        turn = Turn(
            user(prose(rng, measure.characters(tokens))), self.output.draw(rng), "long" if long else "short"
        )
        return Conversation((turn,))


@dataclass(frozen=True, slots=True)
class Chats:
    """Conversations that share a system prompt and grow: what a prefix cache is for."""

    turns: int
    system_tokens: int
    prompt: Length
    output: Length
    think_seconds: float
    seed: int  # of the system prompt
    measured: bool = True

    def conversation(self, number: int, rng: Random, measure: Measure) -> Conversation:
        system = prose(Random(f"system/{self.seed}"), measure.characters(self.system_tokens))
        said = [user(prose(rng, measure.characters(self.prompt.draw(rng)))) for _ in range(self.turns)]
        said[0] = ({"role": "system", "content": system}, *said[0])
        turns = tuple(
            Turn(messages, self.output.draw(rng), f"turn {index + 1}") for index, messages in enumerate(said)
        )
        return Conversation(turns, self.think_seconds)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Prompts and answers as long as those of a trace."""

    requests: tuple[RequestTrace, ...]
    measured: bool = True

    def conversation(self, number: int, rng: Random, measure: Measure) -> Conversation:
        request = self.requests[number % len(self.requests)]
        text = prose(rng, measure.characters(request.prompt_tokens))
        return Conversation((Turn(user(text), request.max_tokens),))


@dataclass(frozen=True, slots=True)
class Prompts:
    """The lines of a file, in turn."""

    turns: tuple[Turn, ...]
    measured: bool = False

    def conversation(self, number: int, rng: Random, measure: Measure) -> Conversation:
        return Conversation((self.turns[number % len(self.turns)],))


def read_prompts(path: Path, max_tokens: int | None) -> Prompts:
    """JSON lines with `prompt` or `messages`, and if they like `max_tokens`, `answer`, `label`.

    Raises WrongOption, with the line.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise WrongOption("--workload", f"{path}: {error}") from error
    if not lines:
        raise WrongOption("--workload", f"{path} is empty.")
    return Prompts(tuple(_turn(path, index, line, max_tokens) for index, line in enumerate(lines, start=1)))


def _turn(path: Path, number: int, line: str, max_tokens: int | None) -> Turn:
    try:
        fields = cast(dict[str, Any], json.loads(line))
        messages = tuple(fields["messages"]) if "messages" in fields else user(fields["prompt"])
        limit = fields.get("max_tokens", max_tokens)
        return Turn(messages, limit, str(fields.get("label", "")), fields.get("answer"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"line {number} needs a prompt or messages ({type(error).__name__}: {error})."
        raise WrongOption("--workload", f"{path}, {problem}") from error
