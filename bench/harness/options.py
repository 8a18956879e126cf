"""From what the command line says to what is done."""

import json
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, cast

from easel.bench.harness.arrivals import Arrivals, Closed, Poisson, Replay, parse_arrivals
from easel.bench.harness.client import Target
from easel.bench.harness.errors import WrongOption
from easel.bench.harness.lengths import parse_length
from easel.bench.harness.load import LoadPlan
from easel.bench.harness.run import BenchPlan
from easel.bench.harness.slo import parse_slo
from easel.bench.harness.wire import BodyPlan, Endpoint, parse_thresholds
from easel.bench.harness.workloads import (
    Chats,
    LongPrompts,
    Prose,
    Questions,
    Recorded,
    Workload,
    read_prompts,
)

DEFAULT_REQUESTS = 200
DEFAULT_CLIENTS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """As given; None and "" are what was not."""

    url: str
    api_key: str = ""
    model: str = ""
    endpoint: str = "chat"
    arrivals: str = ""
    clients: int | None = None
    rate: float | None = None
    requests: int | None = None
    seconds: float | None = None
    workload: str = ""
    prompt_tokens: str = "lognormal:64:0.6"
    long_tokens: str = "uniform:200:350"
    output_tokens: str = "64"
    max_tokens: int = 128
    turns: int = 4
    system_tokens: int = 128
    think_seconds: float = 0.0
    seed: int = 0
    temperature: float = 0.0  # below 0: the server's own
    thresholds: str = ""
    usage: bool = True
    body: str = ""
    headers: tuple[str, ...] = ()
    retries: int = 0
    timeout: float = 600.0
    warm_up: int = 0
    slo: str = ""
    goodput: float = 0.95
    record: Path | None = None


def plan_of(options: Options) -> BenchPlan:
    """Raises WrongOption."""
    if not options.url.startswith(("http://", "https://")):
        raise WrongOption("URL", f"{options.url!r} must begin with http:// or https://.")
    arrivals = arrivals_of(options)
    load = LoadPlan(
        arrivals=arrivals,
        bodies=_bodies(options),
        seed=options.seed,
        requests=_requests(options, arrivals),
        seconds=inf if options.seconds is None else options.seconds,
        retries=options.retries,
    )
    return BenchPlan(
        target=Target(options.url, options.api_key, _headers(options.headers), options.timeout),
        workload=workload_of(options, arrivals),
        load=load,
        warm_up=options.warm_up,
        slo=parse_slo(options.slo) if options.slo else None,
        goodput=options.goodput,
        record=options.record,
        setup=_setup(options, arrivals),
    )


def arrivals_of(options: Options) -> Arrivals:
    """--arrivals, or --rate for a Poisson process, or --clients for a closed loop; one of them."""
    given = [options.arrivals or None, options.rate or None, options.clients]
    if sum(value is not None for value in given) > 1:
        raise WrongOption("--arrivals, --rate, --clients", "give one of them.")
    if options.arrivals:
        return parse_arrivals(options.arrivals)
    if options.rate:
        return Poisson(options.rate)
    return Closed(options.clients or DEFAULT_CLIENTS)


def workload_of(options: Options, arrivals: Arrivals) -> Workload:
    """By its name; a replay without one asks for what was recorded."""
    prompt = parse_length("--prompt-tokens", options.prompt_tokens)
    output = parse_length("--output-tokens", options.output_tokens)
    match options.workload.partition(":"):
        case ("", _, _) if isinstance(arrivals, Replay):
            return Recorded(arrivals.requests)
        case ("" | "demo", "", _):
            return Questions(options.max_tokens)
        case ("prose", "", _):
            return Prose(prompt, output)
        case ("long", "", _):
            return LongPrompts(prompt, parse_length("--long-tokens", options.long_tokens), output)
        case ("chats", "", _):
            think = options.think_seconds
            return Chats(options.turns, options.system_tokens, prompt, output, think, options.seed)
        case ("file", ":", path) if path:
            return read_prompts(Path(path), options.max_tokens)
        case _:
            known = "demo, prose, long, chats or file:PATH"
            raise WrongOption("--workload", f"{options.workload!r} must be {known}.")


def _requests(options: Options, arrivals: Arrivals) -> int | None:
    if isinstance(arrivals, Replay):
        recorded = len(arrivals.requests)  # there is no more to replay
        return min(options.requests or recorded, recorded)
    if options.requests is None and options.seconds is None:
        return DEFAULT_REQUESTS
    return options.requests


def _bodies(options: Options) -> BodyPlan:
    if options.endpoint not in list(Endpoint):
        raise WrongOption("--endpoint", f"{options.endpoint!r} must be {' or '.join(Endpoint)}.")
    return BodyPlan(
        model=options.model,
        endpoint=Endpoint(options.endpoint),
        temperature=None if options.temperature < 0.0 else options.temperature,
        usage=options.usage,
        thresholds=parse_thresholds(options.thresholds),
        extra=_extra(options.body),
    )


def _extra(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        fields: object = json.loads(text)
    except ValueError as error:
        raise WrongOption("--body", f"{text!r} is not JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise WrongOption("--body", f"{text!r} must be a JSON object.")
    return cast(dict[str, Any], fields)


def _headers(given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    for text in given:
        name, separator, value = text.partition(":")
        if not separator or not name.strip():
            raise WrongOption("--header", f"{text!r} must have the form NAME:VALUE.")
        headers.append((name.strip(), value.strip()))
    return tuple(headers)


def _setup(options: Options, arrivals: Arrivals) -> dict[str, Any]:
    """What the results say of the load. Header values may be secrets, so only their names are told."""
    process = options.arrivals
    if not process:
        process = (
            f"closed:{arrivals.clients}" if isinstance(arrivals, Closed) else f"poisson:{options.rate:g}"
        )
    workload = options.workload or ("recorded" if isinstance(arrivals, Replay) else "demo")
    names = ["max_tokens", "temperature", "thresholds", "body", "retries", "timeout", "warm_up"]
    if workload in {"prose", "long", "chats"}:
        names += ["prompt_tokens", "output_tokens"]
    if workload == "long":
        names.append("long_tokens")
    if workload == "chats":
        names += ["turns", "system_tokens", "think_seconds"]
    given = asdict(options)
    told = {name: str(given[name]) for name in names}
    if options.headers:
        told["headers"] = ", ".join(name for name, _ in _headers(options.headers))
    return {"arrivals": process, "workload": workload, "seconds": options.seconds, "options": told}
