"""What `serve deploy` is told: the same settings as a file's, and a scheduler for each version of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from easel.cluster.demo_model import demo_model
from easel.cluster.deployed_settings import check_one_node, deployed_config, settings_version
from easel.cluster.errors import ConfigError, StartFailed
from easel.cluster.journal import JournalSettings

FILE = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
JOURNAL = JournalSettings(url="redis://one:6379")


def test_the_file_that_is_shipped_names_the_application_and_valid_settings() -> None:
    written = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert written["proxy_location"] == "Disabled"
    (application,) = written["applications"]
    assert application["name"] == "easel"
    assert application["route_prefix"] is None
    assert application["import_path"] == "easel.cluster.serve_app:build"
    config = deployed_config(application["args"], {})
    assert config.autoscaling.enabled
    assert config.model == demo_model()


def test_the_environment_wins_so_that_secrets_can_stay_out_of_the_file() -> None:
    args = {"model": "/m", "journal": {"prefix": "mine:"}, "port": 8001}
    environment = {"EASEL_JOURNAL__REDIS_URL": "rediss://secret@redis:6379", "EASEL_PORT": "8002"}
    config = deployed_config(args, environment)
    assert config.journal.redis_url == "rediss://secret@redis:6379"
    assert (config.journal.prefix, config.port) == ("mine:", 8002)


def test_a_model_elsewhere_replaces_the_embedded_one() -> None:
    config = deployed_config({}, {"EASEL_MODEL": "/models/other"})
    assert (config.model, config.model_name) == (Path("/models/other"), None)


def test_a_misspelt_setting_is_named() -> None:
    with pytest.raises(ConfigError, match=r"autoscaling\.max_replica"):
        deployed_config({"autoscaling": {"max_replica": 3}}, {})


@pytest.mark.parametrize(
    ("change", "other"),
    [
        ({}, False),
        ({"engine": {"slots": 3}}, False),
        ({"autoscaling": {"enabled": True}}, False),
        ({"scheduler": {"max_waiting": 3}}, True),
        ({"tenants": [{"name": "a", "key_hashes": ["0" * 64]}]}, True),
        ({"telemetry": {"otlp_endpoint": "http://collector:4318"}}, True),
    ],
)
def test_the_scheduler_is_replaced_when_its_own_settings_change(change: dict[str, Any], other: bool) -> None:
    before = settings_version(deployed_config({"model": "/m"}, {}), JOURNAL)
    after = settings_version(deployed_config({"model": "/m"} | change, {}), JOURNAL)
    assert (before != after) is other


def test_another_journal_needs_another_scheduler() -> None:
    config = deployed_config({"model": "/m"}, {})
    assert settings_version(config, JOURNAL) != settings_version(
        config, JournalSettings(url="redis://two:6379")
    )


def test_one_node_needs_no_redis() -> None:
    gone = {"Alive": False, "Resources": {"CPU": 4.0}}
    check_one_node([{"Alive": True, "Resources": {"CPU": 4.0}}, gone])


@pytest.mark.parametrize("cpus", [[4.0, 4.0], [0.0], [None]])
def test_more_nodes_or_an_empty_head_need_one(cpus: list[float | None]) -> None:
    nodes = [{"Alive": True, "Resources": {} if one is None else {"CPU": one}} for one in cpus]
    with pytest.raises(StartFailed, match="EASEL_JOURNAL__REDIS_URL"):
        check_one_node(nodes)
