"""What a PromQL expression names, found without a parser: metrics, their labels, and bounds of buckets."""

import re
from dataclasses import dataclass

from easel.cluster.gateway.metric_names import METRICS, MetricSpec

_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\b\s*(\([^)]*\))?")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})
ADDED_LABELS = frozenset({"namespace", "pod"})  # by Prometheus, when it scrapes pods


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric with the labels it is asked for."""

    metric: str
    labels: dict[str, str]


def metrics_of(expression: str) -> set[str]:
    """Names of the metrics, recorded ones too."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]', " ", expression)
    bare = _GROUPING.sub(" ", bare)
    return {
        match[0]
        for match in _NAME.finditer(bare)
        if match[0].lower() not in _WORDS and not bare[match.end() :].lstrip().startswith("(")
    }


def selectors_of(expression: str) -> list[Selector]:
    """Every metric that has labels in braces."""
    return [Selector(match[1], dict(_MATCHER.findall(match[2]))) for match in _SELECTOR.finditer(expression)]


def groupings_of(expression: str) -> set[str]:
    """Labels in `by (…)` and its like."""
    lists = (match[2] or "()" for match in _GROUPING.finditer(expression))
    return {label.strip() for group in lists for label in group[1:-1].split(",") if label.strip()}


def spec_of(sample: str) -> MetricSpec:
    """The metric that a sample's name is of. Raises KeyError."""
    found = {name: metric for metric in METRICS for name in metric.exported}
    return found[sample]


def problems_of(expression: str) -> list[str]:
    """Labels that their metric has not, and bounds that its buckets have not."""
    problems: list[str] = []
    for selector in selectors_of(expression):
        spec = spec_of(selector.metric)
        bucket = {"le"} if selector.metric.endswith("_bucket") else set[str]()
        unknown = set(selector.labels) - set(spec.labels) - ADDED_LABELS - bucket
        problems += [f"{selector.metric} has no label {label}" for label in sorted(unknown)]
        if "le" in selector.labels and float(selector.labels["le"]) not in spec.buckets:
            problems.append(f"{selector.metric} has no bucket up to {selector.labels['le']}")
    known = {label for metric in METRICS for label in metric.labels} | ADDED_LABELS | {"le"}
    return problems + [f"nothing has a label {label}" for label in sorted(groupings_of(expression) - known)]
