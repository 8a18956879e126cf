import pytest

from easel.cluster.gateway.auth import tenant_of
from easel.cluster.gateway.settings import GatewaySettings
from tests.cluster.gateway.fakes import CHAT, MODEL, FakeBackend, gateway_app, get, post, saying

pytestmark = pytest.mark.asyncio

KEYS = GatewaySettings(api_keys=("key-one", "key-zwei-ü"))
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer ", "Bearer wrong", "Basic key-one", "Bearer key-on"]
)
async def test_a_missing_or_wrong_key_is_a_401(header: str | None) -> None:
    backend = saying("x")
    headers = {} if header is None else {"authorization": header}
    answer = await post(gateway_app(backend, settings=KEYS), CHAT, BODY, **headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert backend.requests == []


async def test_a_wrong_key_is_told_before_a_wrong_body() -> None:
    answer = await post(gateway_app(saying("x"), settings=KEYS), CHAT, {"nonsense": 1})
    assert answer.status_code == 401


async def test_a_valid_key_is_served_as_its_own_tenant() -> None:
    backend: FakeBackend = saying("x")
    app = gateway_app(backend, settings=KEYS)
    for scheme in ("Bearer", "bearer"):
        assert (await post(app, CHAT, BODY, authorization=f"{scheme} key-one")).status_code == 200
    first, second = (request.tenant for request in backend.requests)
    assert first == second == tenant_of(b"key-one")
    assert "key-one" not in first
    assert tenant_of(b"key-one") != tenant_of(b"key-two")


async def test_without_configured_keys_everyone_is_the_same_tenant() -> None:
    backend = saying("x")
    app = gateway_app(backend)
    await post(app, CHAT, BODY)
    await post(app, CHAT, BODY, authorization="Bearer whatever")
    assert [request.tenant for request in backend.requests] == ["", ""]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_probes_and_scrapers_need_no_key(path: str) -> None:
    assert (await get(gateway_app(saying("x"), settings=KEYS), path)).status_code == 200


async def test_models_need_a_key() -> None:
    app = gateway_app(saying("x"), settings=KEYS)
    assert (await get(app, "/v1/models")).status_code == 401
    assert (await get(app, "/v1/models", authorization="Bearer key-one")).status_code == 200


async def test_settings_do_not_print_their_keys() -> None:
    assert "key-one" not in repr(KEYS)
