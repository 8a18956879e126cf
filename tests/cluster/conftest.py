"""One real Valkey for the journal's tests."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.valkey_server import EmbeddedValkey


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey()
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def settings_of_the_tests_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that steer the tests are no settings of a cluster, which refuses what it does not know."""
    for name in ("EASEL_KUBERAY_CRDS", "EASEL_SCREENSHOTS"):
        monkeypatch.delenv(name, raising=False)


@pytest_asyncio.fixture
async def journal(valkey: EmbeddedValkey, request: pytest.FixtureRequest) -> AsyncIterator[Journal]:
    """A connection with a key space of its own."""
    connection = Journal(JournalSettings(valkey.url, prefix=f"{request.node.name}:"))
    yield connection
    await connection.close()
