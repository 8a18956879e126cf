"""Where settings come from, which wins, and what a wrong one is told."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from easel.cluster.config import ClusterConfig, load_config, option_table
from easel.cluster.errors import ConfigError

MODEL = {"model": "checkpoint"}


def written(folder: Path, text: str) -> Path:
    file = folder / "easel.yaml"
    file.write_text(text)
    return file


def test_only_the_model_has_no_default() -> None:
    config = load_config(overrides=MODEL)
    assert config.model == Path("checkpoint")
    assert (config.host, config.port, config.replicas) == ("127.0.0.1", 8000, 2)
    assert config.journal.redis_url is None
    with pytest.raises(ConfigError, match="model"):
        load_config()


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "model: m\nport: 1\nreplicas: 3\nengine: {slots: 4, pages: 9}\n")
    environment = {"EASEL_PORT": "2", "EASEL_ENGINE__SLOTS": "5", "HOME": "/"}
    config = load_config(file, environment, {"port": 3, "host": None})
    assert (config.port, config.replicas, config.host) == (3, 3, "127.0.0.1")
    assert (config.engine.slots, config.engine.pages) == (5, 9)


def test_api_keys_are_separated_by_commas_and_never_shown() -> None:
    config = load_config(environment={"EASEL_API_KEYS": "key-1, key-2,"}, overrides=MODEL)
    assert config.api_keys == ("key-1", "key-2")
    assert "key-1" not in repr(config)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model: m\nprot: 1\n", "prot"),
        ("model: m\nengine: {slot: 1}\n", r"engine\.slot"),
        ("model: m\nport: 70000\n", "port"),
        ("model: m\nengine: {dtype: int8}\n", r"engine\.dtype"),
        ("- a\n- b\n", "name: value"),
        ("model: [\n", "YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_the_setting(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_config(written(tmp_path, text))
    assert str(tmp_path) in caught.value.source


def test_an_absent_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*cannot be read"):
        load_config(Path("nowhere.yaml"))


def test_an_empty_file_is_no_error(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, ""), overrides=MODEL) == load_config(overrides=MODEL)


def test_a_misspelt_variable_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="EASEL_REPLICAS"):
        load_config(environment={"EASEL_REPLICA": "1"}, overrides=MODEL)


def test_a_configuration_cannot_be_changed_after_start() -> None:
    config = load_config(overrides=MODEL)
    with pytest.raises(ValidationError, match="frozen"):
        config.port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_configuration_survives_its_way_to_another_process() -> None:
    config = load_config(overrides={**MODEL, "api_keys": ["k"], "engine": {"slots": 3}})
    assert ClusterConfig.model_validate_json(config.model_dump_json()) == config


def test_memory_is_given_in_any_unit() -> None:
    config = load_config(environment={"EASEL_ENGINE__MEMORY": "60GiB"}, overrides=MODEL)
    assert config.engine.memory == 60 * 2**30
    assert ClusterConfig.model_validate_json(config.model_dump_json()) == config


def test_slots_and_pages_are_chosen_when_nobody_sets_them() -> None:
    engine = load_config(overrides=MODEL).engine
    assert (engine.slots, engine.pages, engine.memory, engine.device) == (None, None, None, "auto")


def test_every_option_is_documented() -> None:
    rows = option_table()
    assert {"port", "engine.slots", "journal.redis_url"} <= {name for name, _, _ in rows}
    assert [name for name, _, meaning in rows if not meaning.endswith(".")] == []


@pytest.mark.parametrize(
    ("device", "gpus", "each"),
    [("auto", 0.0, 0), ("auto", 1.0, 0), ("auto", 2.0, 1), ("cpu", 8.0, 0), ("cuda", 0.0, 1)],
)
def test_a_replica_has_a_gpu_of_its_own_or_none(device: str, gpus: float, each: int) -> None:
    config = load_config(overrides={"model": Path("m"), "replicas": 2, "engine": {"device": device}})
    assert config.gpus_of_a_replica(gpus) == each
