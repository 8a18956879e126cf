"""What the HTTP edge is told is what the configuration says."""

from pathlib import Path

from easel.cluster.config import load_config
from easel.cluster.edge_settings import edge_settings
from easel.cluster.gateway.settings import GatewaySettings


def test_the_defaults_are_the_edges_own() -> None:
    assert edge_settings(load_config(overrides={"model": Path("m")})) == GatewaySettings()


def test_every_limit_can_be_set() -> None:
    limits = {
        "max_body_bytes": "1MiB",
        "max_header_bytes": 2048,
        "max_depth": 7,
        "max_choices": 5,
        "body_seconds": 1.5,
    }
    given = {"model": Path("m"), "api_keys": ["k"], "deadline_ms": 9, "stream_buffer": 3, "limits": limits}
    assert edge_settings(load_config(overrides=given)) == GatewaySettings(
        api_keys=("k",),
        deadline_ms=9,
        stream_buffer=3,
        max_body_bytes=1024 * 1024,
        max_header_bytes=2048,
        max_depth=7,
        max_choices=5,
        body_seconds=1.5,
    )
