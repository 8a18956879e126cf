"""Numbers in options such as `gamma:5:0.3`: a name, then its values, separated by colons."""

from math import isfinite

from easel.bench.harness.errors import WrongOption


def values_of(option: str, text: str, names: tuple[str, ...], least: float = 0.0) -> list[float]:
    """The numbers after the first colon, one per name, each above `least`. Raises WrongOption."""
    kind, *given = text.split(":")
    if len(given) != len(names):
        wanted = ":".join((kind, *map(str.upper, names)))
        raise WrongOption(option, f"{text!r} must have the form {wanted}.")
    return [number_of(option, value, name, least) for value, name in zip(given, names, strict=True)]


def number_of(option: str, text: str, name: str, least: float = 0.0) -> float:
    """A finite number above `least`. Raises WrongOption."""
    try:
        value = float(text)
    except ValueError:
        value = least
    if not isfinite(value) or value <= least:
        raise WrongOption(option, f"{name} is {text!r}; it must be a number above {least:g}.")
    return value
