"""docs/telemetry.md says of every metric, span, attribute and setting what the code says."""

from pathlib import Path

import pytest

from easel.cluster.config_sections import TelemetrySection
from easel.cluster.gateway.metric_names import METRICS, MetricSpec
from easel.cluster.span_names import ATTRIBUTES, EVENTS, SPANS

TEXT = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
ROWS = set(TEXT.splitlines())


@pytest.mark.parametrize("spec", METRICS, ids=lambda spec: spec.name)
def test_every_metric_is_documented_as_it_is(spec: MetricSpec) -> None:
    labels = ", ".join(f"`{label}`" for label in spec.labels)
    assert f"| `{spec.name}` | {spec.kind.value} | {labels} | {spec.meaning} |" in ROWS


def test_every_span_event_and_attribute_is_documented_as_it_is() -> None:
    for name, meaning in (SPANS | EVENTS | ATTRIBUTES).items():
        assert f"| `{name}` | {meaning} |" in ROWS


def test_every_setting_is_documented_as_it_is() -> None:
    for name, setting in TelemetrySection.model_fields.items():
        assert any(
            row.startswith(f"| `telemetry.{name}` |") and row.endswith(f"| {setting.description} |")
            for row in ROWS
        )
