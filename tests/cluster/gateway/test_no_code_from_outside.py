"""What comes from a client, from Redis or from a file is data: nothing of it is unpickled or run."""

import ast

from tests.repository import SourceFile, source_files

UNPICKLERS = frozenset({"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"})
RUNNERS = frozenset({"eval", "exec", "compile", "__import__"})
YAML_READERS = frozenset({"load", "load_all", "full_load", "unsafe_load", "unsafe_load_all"})
OUTER = ("cluster/gateway/", "cluster/journal", "cluster/config", "cluster/chat", "scheduler/")
PRODUCTION = [file for file in source_files() if file.package in ("cluster", "scheduler", "worker", "demo")]
EDGE = [file for file in PRODUCTION if str(file.path).startswith(OUTER)]


def calls(file: SourceFile) -> list[tuple[str, str]]:
    """(object, function) of each call; the object is "" for a plain name."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(file.tree):
        match node:
            case ast.Call(func=ast.Name(id=name)):
                found.append(("", name))
            case ast.Call(func=ast.Attribute(value=ast.Name(id=owner), attr=name)):
                found.append((owner, name))
            case _:
                pass
    return found


def test_the_edge_knows_no_unpickler_and_runs_nothing_it_reads() -> None:
    assert len(EDGE) > 30
    for file in EDGE:
        modules = {module.split(".")[0] for _, module in file.imports()}
        assert not modules & UNPICKLERS, file.path
        assert not {name for owner, name in calls(file) if owner == ""} & RUNNERS, file.path


def test_settings_and_weights_are_read_as_data() -> None:
    for file in PRODUCTION:
        made = calls(file)
        assert not [name for owner, name in made if owner == "yaml" and name in YAML_READERS], file.path
        assert "trust_remote_code=True" not in file.text, file.path
        # Training resumes from its own checkpoints, of which PyTorch reads numbers only.
        assert ("torch", "load") not in made or "weights_only=True" in file.text, file.path
