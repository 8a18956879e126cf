"""Named tenants, and what their requests' headers may ask for."""

from typing import Any

import pytest
from starlette.requests import Request as HttpRequest

from easel.cluster.config_sections import TenantSection
from easel.cluster.errors import ConfigError
from easel.cluster.gateway.auth import hash_of_key
from easel.cluster.gateway.errors import InvalidField
from easel.cluster.gateway.settings import GatewaySettings, Tenant
from easel.cluster.gateway.tenancy import MAX_DEADLINE_MS, Terms, tenants_of, terms_of
from easel.scheduler.request import Priority
from tests.cluster.gateway.fakes import CHAT, MODEL, gateway_app, get, post, saying

DEADLINE, PRIORITY = "x-easel-deadline-ms", "x-easel-priority"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


ACME = Tenant("acme", (hash_of_key("one"), hash_of_key("two")))
NIGHTLY = Tenant("nightly", (hash_of_key("three"),), Priority.BATCH, deadline_ms=60_000)
HASTY = Tenant("hasty", (hash_of_key("vier-ü"),), Priority.INTERACTIVE)
SETTINGS = GatewaySettings(tenants=(ACME, NIGHTLY, HASTY), deadline_ms=5000)


def terms(tenant: str, settings: GatewaySettings = SETTINGS, **headers: str) -> Terms:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "headers": raw, "state": {"tenant": tenant}}
    return terms_of(HttpRequest(scope), settings)


def section(name: str = "acme", keys: tuple[str, ...] = ("one",), **fields: Any) -> TenantSection:
    return TenantSection(name=name, key_hashes=tuple(hash_of_key(key) for key in keys), **fields)


def test_a_configured_tenant_has_its_class_and_its_deadline() -> None:
    (tenant,) = tenants_of([section(priority="batch", deadline_ms=1500)])
    assert tenant == Tenant("acme", (hash_of_key("one"),), Priority.BATCH, 1500)


def test_a_hash_may_be_written_in_capitals() -> None:
    (tenant,) = tenants_of([TenantSection(name="acme", key_hashes=(hash_of_key("one").upper(),))])
    assert tenant.key_hashes == (hash_of_key("one"),)


@pytest.mark.parametrize(
    "given", ["sk-plain-secret", hash_of_key("one")[:-1], "g" * 64, hash_of_key("one") + "0"]
)
def test_a_key_instead_of_its_hash_is_refused_without_being_repeated(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tenants_of([TenantSection(name="acme", key_hashes=(given,))])
    assert "acme" in str(caught.value)
    assert given not in str(caught.value)


@pytest.mark.parametrize("second", [section(keys=("two",)), section("other"), section("other", ("x", "x"))])
def test_a_name_or_a_key_that_two_tenants_share_is_refused(second: TenantSection) -> None:
    with pytest.raises(ConfigError, match="once is enough"):
        tenants_of([section(), second])


@pytest.mark.parametrize(
    ("tenant", "expected"),
    [
        ("acme", Terms("acme", Priority.STANDARD, 5.0)),
        ("nightly", Terms("nightly", Priority.BATCH, 60.0)),
        ("0123456789abcdef", Terms("0123456789abcdef", Priority.STANDARD, 5.0)),
    ],
)
def test_without_headers_the_tenant_s_terms_hold_and_then_the_server_s(tenant: str, expected: Terms) -> None:
    assert terms(tenant) == expected


def test_without_any_deadline_there_is_none() -> None:
    assert terms("acme", GatewaySettings(tenants=(ACME,))).deadline_seconds is None


@pytest.mark.parametrize(("text", "seconds"), [("1", 0.001), (" 2500 ", 2.5), (str(MAX_DEADLINE_MS), 86_400)])
def test_a_header_names_the_deadline(text: str, seconds: float) -> None:
    assert terms("nightly", x_easel_deadline_ms=text).deadline_seconds == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "+5", "1.5", "1e3", "soon", "٣", "1_000", "9" * 5000, str(MAX_DEADLINE_MS + 1)]
)
def test_another_deadline_is_refused_by_the_header_s_name(text: str) -> None:
    with pytest.raises(InvalidField) as caught:
        terms("acme", x_easel_deadline_ms=text)
    assert caught.value.param == DEADLINE
    assert len(caught.value.message) < 250


def test_a_header_given_twice_is_refused() -> None:
    raw = [(DEADLINE.encode(), b"5"), (DEADLINE.encode(), b"6")]
    scope = {"type": "http", "headers": raw, "state": {"tenant": "acme"}}
    with pytest.raises(InvalidField, match="2 times"):
        terms_of(HttpRequest(scope), SETTINGS)


@pytest.mark.parametrize(
    ("tenant", "asked", "given"),
    [
        ("hasty", "interactive", Priority.INTERACTIVE),
        ("hasty", "Batch", Priority.BATCH),
        ("acme", "standard", Priority.STANDARD),
        ("acme", "batch", Priority.BATCH),
        ("nightly", "batch", Priority.BATCH),
    ],
)
def test_a_request_may_have_its_tenant_s_class_or_a_later_one(
    tenant: str, asked: str, given: Priority
) -> None:
    assert terms(tenant, x_easel_priority=asked).priority is given


@pytest.mark.parametrize(
    ("tenant", "asked"), [("acme", "interactive"), ("nightly", "standard"), ("acme", "urgent"), ("acme", "")]
)
def test_a_sooner_or_unknown_class_is_refused_with_those_there_are(tenant: str, asked: str) -> None:
    with pytest.raises(InvalidField, match=r"may ask for .*batch") as caught:
        terms(tenant, x_easel_priority=asked)
    assert caught.value.param == PRIORITY


def test_where_no_key_is_asked_for_any_class_may_be() -> None:
    open_to_all = GatewaySettings()
    assert terms("", open_to_all).priority is Priority.STANDARD
    assert terms("", open_to_all, x_easel_priority="interactive").priority is Priority.INTERACTIVE
    with pytest.raises(InvalidField):
        terms("0123456789abcdef", GatewaySettings(api_keys=("key",)), x_easel_priority="interactive")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("key", "tenant", "priority"),
    [
        ("one", "acme", Priority.STANDARD),
        ("two", "acme", Priority.STANDARD),
        ("three", "nightly", Priority.BATCH),
    ],
)
async def test_every_key_of_a_tenant_is_served_in_its_name(key: str, tenant: str, priority: Priority) -> None:
    backend = saying("x")
    headers = {"authorization": f"Bearer {key}", DEADLINE: "4000"}
    app = gateway_app(backend, settings=SETTINGS, clock=lambda: 0.0)
    assert (await post(app, CHAT, BODY, **headers)).status_code == 200
    (request,) = backend.requests
    assert (request.tenant, request.priority, request.deadline_seconds) == (tenant, priority, 4.0)


@pytest.mark.asyncio
async def test_a_wrong_header_is_a_400_that_names_it() -> None:
    backend = saying("x")
    answer = await post(gateway_app(backend), CHAT, BODY, **{DEADLINE: "soon"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == DEADLINE
    assert backend.requests == []


@pytest.mark.asyncio
@pytest.mark.parametrize("given", ["", "four", hash_of_key("one"), "acme"])
async def test_neither_a_hash_nor_a_name_is_a_key(given: str) -> None:
    app = gateway_app(saying("x"), settings=SETTINGS)
    assert (await get(app, "/v1/models", authorization=f"Bearer {given}")).status_code == 401


@pytest.mark.asyncio
async def test_the_hash_of_nothing_lets_nobody_in() -> None:
    app = gateway_app(saying("x"), settings=GatewaySettings(tenants=(Tenant("none", (hash_of_key(""),)),)))
    assert (await get(app, "/v1/models", authorization="Bearer ")).status_code == 401


def test_hashes_are_not_printed() -> None:
    assert hash_of_key("one") not in repr(SETTINGS)
