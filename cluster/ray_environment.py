"""Ray's settings that only the environment can carry; they must be there before Ray is imported."""

import os
import secrets
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager


def ray_environment() -> dict[str, str]:
    """Variables for a private, local Ray.

    A fresh token guards every port Ray opens, some of which it binds on all interfaces.
    """
    return serve_environment() | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def serve_environment() -> dict[str, str]:
    """Variables that Easel's processes want on any Ray cluster; set them where its nodes are started."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # gRPC between replicas and one event loop in each; gateways listen for themselves.
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    }


@contextmanager
def environment(variables: Mapping[str, str]) -> Generator[None]:
    """Set variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
