"""How long prompts and answers are, in tokens, and text of such a length."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from random import Random

from easel.bench.harness.errors import WrongOption
from easel.bench.harness.numbers import values_of

# Common ones, so that a tokenizer of whatever vocabulary has most of them whole.
_TEXT = """
the of and to in is it you that he was for on are with as his they be at one have this from or had
by hot but some what there we can out other were all your when up use word how said an each she
which do their time if will way about many then them would write like so these her long make thing
see him two has look more day could go come did my sound no most number who over know water than
call first people may down side been now find any new work part take get place made live where after
back little only round man year came show every good me give our under name very through just form
much great think say help low line before turn cause same mean differ move right boy old too does
tell set three want air
"""
WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Length:
    """A distribution of whole numbers from 1: fixed:N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA."""

    kind: str
    values: tuple[float, ...]

    def draw(self, rng: Random) -> int:
        match self.kind:
            case "fixed":
                return int(self.values[0])
            case "uniform":
                low, high = self.values
                return rng.randint(int(low), int(high))
            case _:
                median, sigma = self.values
                return max(1, round(median * exp(rng.gauss(0.0, sigma))))

    def __str__(self) -> str:
        return ":".join((self.kind, *(f"{value:g}" for value in self.values)))


FORMS = {"fixed": ("n",), "uniform": ("low", "high"), "lognormal": ("median", "sigma")}


def parse_length(option: str, text: str) -> Length:
    """A distribution; a number alone is fixed. Raises WrongOption."""
    if text.isdigit():
        text = f"fixed:{text}"
    kind = text.split(":")[0]
    if kind not in FORMS:
        raise WrongOption(option, f"{text!r} must be a number, or begin with {', '.join(FORMS)}.")
    values = values_of(option, text, FORMS[kind])
    if values[0] < 1 or (kind == "uniform" and values[0] > values[1]):
        raise WrongOption(option, f"{text!r} must lie above 1, the lower end first.")
    return Length(kind, tuple(values))


@dataclass(frozen=True, slots=True)
class Measure:
    """How many tokens a server makes of a prompt: some for its template, the rest for each character."""

    template: float = 8.0
    per_character: float = 0.25

    def characters(self, tokens: int) -> int:
        """Of a text that makes a prompt of so many tokens, 1 at least."""
        return max(1, round((tokens - self.template) / self.per_character))


def measure_of(probes: Sequence[tuple[int, int]]) -> Measure:
    """The line through two (characters, tokens). What cannot be a tokenizer's gives the default."""
    (short, few), (long, many) = probes
    per_character = (many - few) / (long - short)
    if not 0.0 < per_character <= 4.0:  # four bytes are the most that a character has
        return Measure()
    return Measure(max(0.0, few - per_character * short), per_character)


def prose(rng: Random, characters: int) -> str:
    """Words in a row, cut off at the length."""
    words: list[str] = []
    length = 0
    while length <= characters:
        words.append(rng.choice(WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)[:characters]
