"""The page's cluster view in a real browser, on a gateway that tells of a made-up cluster."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.browser import PHONE, Visit, answer_with, chromium, serving, visit
from tests.cluster.gateway.fake_cluster import TRACE, cluster_state
from tests.cluster.gateway.fakes import gateway_app, saying


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@contextmanager
def cluster_page(browser: Browser, **options: Any) -> Generator[Visit]:
    with serving(gateway_app(saying("x"))) as origin, visit(browser, origin, **options) as here:
        answer_with(here.page, f"{origin}/cluster", cluster_state())
        answer_with(here.page, f"{origin}/cluster/requests/**", TRACE)
        here.page.get_by_role("link", name="Cluster").click()
        here.page.get_by_role("article", name="Replica k2f8q1zc").wait_for()
        yield here


def test_the_cluster_view_shows_what_the_gateway_tells(browser: Browser) -> None:
    with cluster_page(browser) as here:
        replica = here.page.get_by_role("article", name="Replica k2f8q1zc")
        expect(replica).to_contain_text("11 of 16")
        expect(replica).to_contain_text("614 of 1,024")
        expect(replica).to_contain_text("317")
        words = replica.get_by_role("img").get_attribute("aria-label") or ""
        assert words.startswith("7 % refresh, 93 % reuse over 120 steps")
        expect(here.page.get_by_role("article", name="Replica x9d0m4te")).to_contain_text("draining")
        expect(here.page.locator("#overview")).to_contain_text("degraded")
        expect(here.page.locator("#faults")).to_contain_text("replica lost a1b2c3d4")
        expect(here.page.locator("#requests tbody tr")).to_have_count(30)


LOOKS: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": PHONE},
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_request_s_trace_is_a_timeline(browser: Browser, look: str) -> None:
    with cluster_page(browser, **LOOKS[look]) as here:
        request = here.page.locator("#requests").get_by_role("button").nth(1)
        request.focus()
        here.page.keyboard.press("Enter")
        events = here.page.get_by_role("list", name="Events of the request")
        expect(events.get_by_role("listitem")).to_have_count(11)
        expect(events).to_contain_text("replica lost")
        expect(here.page.locator("#trace")).to_contain_text("0af7651916cd43dd8448eb211c80319c")
        expect(here.page.locator("#requests [aria-pressed=true]")).to_have_count(1)
        assert here.fits()
        here.keep(f"web-cluster-made-up-{look}")


def test_the_cluster_is_asked_only_while_it_is_seen(browser: Browser) -> None:
    with serving(gateway_app(saying("x"))) as origin, visit(browser, origin) as here:
        page = here.page
        page.clock.install()
        answer_with(page, f"{origin}/cluster", cluster_state())
        page.get_by_role("link", name="Cluster").click()
        page.get_by_role("article", name="Replica k2f8q1zc").wait_for()
        for _ in range(3):
            with page.expect_request("**/cluster"):
                page.clock.run_for(501)
        page.get_by_role("link", name="Playground").click()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.clock.run_for(10_000)
        # The browser fetches the page's icon when it likes.
        assert [url for url in asked if not url.endswith("/icon.svg")] == []


def test_a_server_that_tells_nothing_of_its_cluster_is_asked_once(browser: Browser) -> None:
    with serving(gateway_app(saying("x"))) as origin, visit(browser, origin) as here:
        here.allowed = ("status of 404",)
        answer_with(here.page, f"{origin}/cluster", {"error": {"message": "No such path."}}, status=404)
        here.page.get_by_role("link", name="Cluster").click()
        expect(here.page.get_by_role("alert")).to_contain_text("does not report")
