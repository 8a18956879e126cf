"""The journal over TLS, as a user with few rights, and with its secrets kept."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from easel.cluster import journal as journal_module
from easel.cluster.answer_store import JournaledAnswers
from easel.cluster.errors import ConfigError, JournalUnavailable
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_records import AnswerStatus
from easel.cluster.journal_settings import place_of
from easel.cluster.valkey_server import EmbeddedValkey
from easel.scheduler.request import FinishReason
from tests.cluster.fakes import a_block, a_request
from tests.cluster.test_answer_store import an_answer

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")


def documented_rule() -> list[str]:
    """The access rule in the journal's docstring."""
    text = (journal_module.__doc__ or "").partition("ACL SETUSER ")[2]
    return text.replace(">PASSWORD", ">secret").split()


@pytest_asyncio.fixture
async def limited(valkey: EmbeddedValkey) -> AsyncIterator[Journal]:
    """A connection of the documented user."""
    admin = Journal(JournalSettings(valkey.url))
    await admin._redis.execute_command("ACL", "SETUSER", *documented_rule())
    connection = Journal(JournalSettings(f"{valkey.url}?username=easel&password=secret"))
    yield connection
    await connection.close()
    log: list[dict[str, str]] = await cast(Any, admin._redis).execute_command("ACL", "LOG")
    await admin._redis.execute_command("ACL", "LOG", "RESET")
    await admin._redis.execute_command("ACL", "DELUSER", "easel")
    await admin.close()
    assert [(entry["reason"], entry["object"]) for entry in log] == []


@pytest.mark.asyncio
async def test_the_documented_rights_are_enough(limited: Journal) -> None:
    await limited.ping()
    await limited.admit(a_request())
    epoch = await limited.acquire_lease("r", "a", 0)
    await limited.append_block(a_block(0), epoch)
    await limited.append_block(a_block(2), epoch)
    await limited.renew("r", epoch)
    await limited.finish("r", FinishReason.CANCELLED, epoch)
    assert await limited.read("r") is not None
    store = JournaledAnswers(limited, "a", 0.0)
    for end in ("release", "cancel", "conclude"):
        await store.claim(an_answer(end))
        await store.renew(end)
    await store.release("release")
    await store.cancel("cancel")
    assert await store.orphans() != []
    await store.conclude("conclude", AnswerStatus.COMPLETED)
    assert await store.read("conclude") is not None


@pytest.mark.asyncio
async def test_a_refused_user_is_an_unavailable_journal_and_keeps_its_password(
    valkey: EmbeddedValkey,
) -> None:
    journal = Journal(JournalSettings(f"{valkey.url}?username=easel&password=wrong-secret"))
    with pytest.raises(JournalUnavailable, match="invalid username") as caught:
        await journal.ping()
    assert "secret" not in f"{caught.value} {caught.value.__cause__!r} {journal.settings!r}"
    await journal.close()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://user:secret@host:1/0", "redis://…@host:1/0"),
        ("rediss://:sec@ret@host", "rediss://…@host"),
        ("redis://user:sec/ret@host:1", "redis://…@host:1"),
        ("unix:///run/redis.sock?password=secret", "unix:///run/redis.sock"),
    ],
)
def test_a_password_is_not_shown(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    "url", ["redis://user:sec/ret@host:1", "valkey://user:secret@host", "user:secret@host"]
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis_url") as caught:
        Journal(JournalSettings(url))
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None


class Certificates:
    """An authority and what it has signed: one certificate for the server, one for a client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._openssl(
            "req", "-x509", "-subj", "/CN=authority", *self._new("ca"), "-out", str(self.path("ca.crt"))
        )
        for name in ("server", "client"):
            names = folder / f"{name}.ext"
            names.write_text("subjectAltName=IP:127.0.0.1")
            self._openssl(
                "req", "-subj", f"/CN={name}", *self._new(name), "-out", str(self.path(f"{name}.csr"))
            )
            self._openssl(
                "x509", "-req", "-in", str(self.path(f"{name}.csr")), "-CA", str(self.path("ca.crt")),
                "-CAkey", str(self.path("ca.key")), "-CAcreateserial", "-extfile", str(names),
                "-out", str(self.path(f"{name}.crt")),
            )  # fmt: skip

    def path(self, name: str) -> Path:
        return self._folder / name

    def _new(self, name: str) -> list[str]:
        key = str(self.path(f"{name}.key"))
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key]

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def tls_in_front_of(valkey: EmbeddedValkey, certificates: Certificates) -> AsyncGenerator[int]:
    """Ends TLS for a server that is built without it; yields its port. It asks for a client's certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.path("ca.crt"))
    context.load_cert_chain(certificates.path("server.crt"), certificates.path("server.key"))
    context.verify_mode = ssl.CERT_REQUIRED

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # one side has gone
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_unix_connection(valkey.folder / "valkey.sock")
        await asyncio.gather(copy(reader, inner[1]), copy(inner[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def with_tls(port: int, certificates: Certificates) -> JournalSettings:
    return JournalSettings(
        f"rediss://127.0.0.1:{port}",
        timeout_seconds=5.0,
        tls_ca=certificates.path("ca.crt"),
        tls_cert=certificates.path("client.crt"),
        tls_key=certificates.path("client.key"),
    )


@needs_openssl
@pytest.mark.asyncio
async def test_the_journal_works_over_tls(valkey: EmbeddedValkey, certificates: Certificates) -> None:
    async with tls_in_front_of(valkey, certificates) as port:
        journal = Journal(with_tls(port, certificates))
        await journal.admit(a_request("over-tls"))
        assert await journal.read("over-tls") is not None
        await journal.close()


@needs_openssl
@pytest.mark.asyncio
async def test_a_server_of_another_authority_is_not_talked_to(
    valkey: EmbeddedValkey, certificates: Certificates, tmp_path: Path
) -> None:
    stranger = Certificates(tmp_path)
    async with tls_in_front_of(valkey, certificates) as port:
        settings = replace(with_tls(port, certificates), tls_ca=stranger.path("ca.crt"))
        journal = Journal(settings)
        with pytest.raises(JournalUnavailable, match=r"(?i)certificate"):
            await journal.ping()
        await journal.close()


def test_certificates_that_would_not_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a file"):
        Journal(JournalSettings("rediss://host", tls_ca=tmp_path / "absent"))
    (tmp_path / "ca.crt").touch()
    with pytest.raises(ConfigError, match="no rediss://"):
        Journal(JournalSettings("redis://host", tls_ca=tmp_path / "ca.crt"))
