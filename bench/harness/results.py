"""A results file: the circumstances, the figures, and every request, in versioned JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from easel.bench.harness.errors import BrokenResults
from easel.bench.harness.figures import Figures, by_label, figures_of, seconds_of
from easel.bench.harness.generator import GeneratorLoad
from easel.bench.harness.records import DIGITS, Record, record_from
from easel.bench.harness.scrape import ServerFigures
from easel.bench.harness.slo import Verdict

FORMAT = "easel-bench-1"


@dataclass(frozen=True, slots=True)
class Results:
    """One load. What follows from the requests is not stored twice, only written for readers."""

    setup: Mapping[str, Any]
    records: Sequence[Record]
    generator: GeneratorLoad
    server: ServerFigures | None = None
    verdict: Verdict | None = None
    interrupted: bool = False
    notes: Sequence[str] = field(default_factory=list[str])

    @property
    def seconds(self) -> float:
        return seconds_of(self.records)

    @property
    def figures(self) -> Figures:
        return figures_of(self.records, self.seconds)

    @property
    def labels(self) -> dict[str, Figures]:
        return by_label(self.records, self.seconds)


def as_json(results: Results) -> dict[str, Any]:
    """The file's content."""
    return {
        "format": FORMAT,
        "setup": dict(results.setup),
        "figures": _rounded(asdict(results.figures)),
        "labels": {label: _rounded(asdict(figures)) for label, figures in results.labels.items()},
        "slo": None if results.verdict is None else asdict(results.verdict) | {"met": results.verdict.met},
        "generator": asdict(results.generator),
        "server": None if results.server is None else asdict(results.server),
        "interrupted": results.interrupted,
        "notes": list(results.notes),
        "requests": [record.as_json() for record in results.records],
    }


def _rounded(value: Any) -> Any:
    """Numbers to the microsecond, however deep."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in cast(dict[str, Any], value).items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def write_results(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(results), indent=1) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Raises BrokenResults."""
    try:
        fields = cast(dict[str, Any], json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BrokenResults(str(path), str(error)) from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BrokenResults(str(path), f"its format is not {FORMAT!r}")
    try:
        return _results(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenResults(str(path), f"{type(error).__name__}: {error}") from error


def _results(fields: dict[str, Any]) -> Results:
    slo, server = fields["slo"], fields["server"]
    verdict = None if slo is None else Verdict(**{name: slo[name] for name in slo if name != "met"})
    return Results(
        setup=fields["setup"],
        records=[record_from(request) for request in fields["requests"]],
        generator=GeneratorLoad(**fields["generator"]),
        server=None if server is None else ServerFigures(**server),
        verdict=verdict,
        interrupted=bool(fields["interrupted"]),
        notes=fields["notes"],
    )
