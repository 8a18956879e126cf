import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from easel.cluster.cli import app, serve_settings
from easel.cluster.config import ClusterConfig
from easel.cluster.demo_model import DEMO_MODEL_NAME, demo_model
from easel.cluster.errors import ConfigError, PortTaken

HEAVY = ("torch", "ray", "transformers", "fastapi", "httpx", "pydantic")


def easel(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_version_is_printed() -> None:
    answer = easel("--version")
    assert answer.exit_code == 0
    assert answer.output.startswith("easel ")


def test_the_command_line_imports_nothing_heavy_before_it_knows_what_to_do() -> None:
    code = f"import sys, easel.cluster.cli; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_without_a_command_the_help_lists_all() -> None:
    output = easel().output
    assert all(command in output for command in ("serve", "chat", "doctor"))


def test_the_embedded_model_is_served_where_nobody_names_another() -> None:
    settings = serve_settings(None, None, {}, {})
    assert settings.model == demo_model()
    assert settings.model_name == DEMO_MODEL_NAME


def test_the_embedded_model_is_where_the_demo_package_is() -> None:
    assert demo_model().parent.name == "demo"


def test_a_model_on_the_command_line_keeps_its_own_name() -> None:
    settings = serve_settings(Path("/models/mine"), None, {}, {})
    assert (settings.model, settings.model_name) == (Path("/models/mine"), None)


def test_a_model_in_the_file_or_the_environment_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "easel.yaml"
    file.write_text("model: /models/file\nport: 9000\n")
    assert serve_settings(None, file, {}, {}).model == Path("/models/file")
    assert serve_settings(None, None, {"EASEL_MODEL": "/models/env"}, {}).model == Path("/models/env")


def test_a_file_without_a_model_serves_the_embedded_one(tmp_path: Path) -> None:
    file = tmp_path / "easel.yaml"
    file.write_text("port: 9000\n")
    settings = serve_settings(None, file, {}, {})
    assert (settings.model, settings.port) == (demo_model(), 9000)


def test_options_of_the_command_line_win(tmp_path: Path) -> None:
    file = tmp_path / "easel.yaml"
    file.write_text("port: 9000\nreplicas: 3\n")
    given = {"port": 9001, "replicas": None, "journal": {"redis_url": "redis://x"}}
    settings = serve_settings(None, file, {"EASEL_PORT": "9002"}, given)
    assert (settings.port, settings.replicas, settings.journal.redis_url) == (9001, 3, "redis://x")


def test_a_wrong_setting_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "easel.yaml"
    file.write_text("prot: 9000\n")
    with pytest.raises(ConfigError, match="prot"):
        serve_settings(None, file, {}, {})


def test_serve_hands_its_options_to_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[ClusterConfig] = []

    def serve_forever(config: ClusterConfig, report: Any) -> None:
        served.append(config)
        report("Easel serves [here]")

    monkeypatch.setattr("easel.cluster.lifecycle.serve_forever", serve_forever)
    answer = easel("serve", "/models/mine", "--replicas", "3", "--host", "127.0.0.2", "--port", "8123")
    assert answer.exit_code == 0
    assert answer.output == "Easel serves [here]\n"
    (config,) = served
    assert (config.model, config.replicas, config.host, config.port) == (
        Path("/models/mine"),
        3,
        "127.0.0.2",
        8123,
    )


def test_serve_says_in_one_line_why_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve_forever(config: ClusterConfig, report: Any) -> None:
        raise PortTaken(config.host, config.port)

    monkeypatch.setattr("easel.cluster.lifecycle.serve_forever", serve_forever)
    answer = easel("serve")
    assert answer.exit_code == 1
    assert answer.stderr.startswith("easel: port 8000 on 127.0.0.1 is in use")


def test_serve_refuses_a_directory_that_is_no_model(tmp_path: Path) -> None:
    answer = easel("serve", str(tmp_path))
    assert answer.exit_code == 1
    assert "config.json is missing" in answer.stderr


def test_chat_says_when_nobody_serves(unused_tcp_port: int) -> None:
    answer = easel("chat", "hi", "--url", f"http://127.0.0.1:{unused_tcp_port}")
    assert answer.exit_code == 1
    assert "is `easel serve` running there?" in answer.stderr


def test_a_key_comes_with_its_hash() -> None:
    made, digest = (line.split()[1] for line in easel("key").output.splitlines())
    assert made.startswith("easel-")
    assert digest == sha256(made.encode()).hexdigest()
    assert easel("key").output.split()[1] != made


def test_bench_says_when_nobody_serves(unused_tcp_port: int) -> None:
    answer = easel("bench", f"http://127.0.0.1:{unused_tcp_port}")
    assert answer.exit_code == 1
    assert "is `easel serve` running there?" in answer.stderr
