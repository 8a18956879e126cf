"""The web page in a real browser, on a gateway whose cluster plays a script."""

from collections.abc import Iterator, Sequence

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect
from starlette.types import Receive, Scope, Send

from easel.cluster.errors import NoReplica
from easel.cluster.gateway.settings import GatewaySettings
from easel.scheduler.messages import CanvasSnapshot
from easel.scheduler.request import FinishReason, Request
from tests.browser import chromium, serving, visit
from tests.cluster.gateway.fakes import FakeBackend, Script, block, gateway_app, tokens_of

KEYED = GatewaySettings(api_keys=("right-key",))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def snapshot(request: Request, step: int, text: str, decided: str, confidence: float) -> CanvasSnapshot:
    """A canvas of eight positions."""
    return CanvasSnapshot(
        request_id=request.request_id,
        block_index=0,
        step=step,
        tokens=tokens_of(text),
        decided=tuple(sign == "1" for sign in decided),
        confidence=(confidence,) * len(text),
        first=0,
    )


def renoising(request: Request) -> Script:
    """The third position is decided, sent back to noise, and decided again."""
    return [
        snapshot(request, 1, "abcdefgh", "11100000", 0.95),
        snapshot(request, 2, "abXdefgh", "11000000", 0.45),
        snapshot(request, 3, "abcdefgh", "11111111", 0.99),
        block(request, 0, tokens_of("abcdefgh"), FinishReason.STOP),
    ]


def broken(request: Request) -> Script:
    return [block(request, 0, tokens_of("abcdefgh")), NoReplica(1.0)]


def ask(page: Page, prompt: str = "hello") -> Locator:
    """The one side that answers."""
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Run").click()
    return page.get_by_role("article", name="Setting A")


def seek(page: Page, *keys: str) -> None:
    page.get_by_role("slider", name="Step of the replay").focus()
    for key in keys:
        page.keyboard.press(key)


def states(side: Locator, name: str) -> Sequence[str]:
    script = f"cells => cells.map(cell => cell.dataset.{name})"
    return side.get_by_role("listitem").evaluate_all(script)


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_position_sent_back_to_noise_flickers_unless_motion_is_unwelcome(
    browser: Browser, motion: str
) -> None:
    app = gateway_app(FakeBackend(renoising))
    with serving(app) as origin, visit(browser, origin, reduced_motion=motion) as here:
        side = ask(here.page)
        expect(side.locator(".prefix")).to_have_text("abcdefgh")
        seek(here.page, "Home", "ArrowRight")
        assert states(side, "change") == ["kept", "kept", "renoised", *["kept"] * 5]
        assert states(side, "band") == ["1"] * 8
        cell = side.get_by_role("listitem").nth(2)
        assert "sent back to noise" in (cell.get_attribute("aria-label") or "")
        animation = cell.evaluate("cell => getComputedStyle(cell).animationName")
        assert animation == ("flicker" if motion == "no-preference" else "none")
        # Without colour, too: an edge of its own, and a bar as long as the confidence.
        assert cell.evaluate("cell => getComputedStyle(cell).borderTopStyle") == "dotted"
        assert cell.evaluate("cell => cell.style.getPropertyValue('--confidence')") == "0.45"


def test_what_is_typed_before_the_page_is_ready_is_kept_and_asked(browser: Browser) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    with serving(gateway_app(FakeBackend(renoising))) as origin, browser.new_page() as page:
        page.route("**/ui/model.json", hold)
        with page.expect_request("**/ui/model.json"):
            page.goto(f"{origin}/")
        page.get_by_label("Prompt").fill("typed early")
        for name in ("Run", "Ask them"):
            expect(page.get_by_role("button", name=name)).to_be_disabled()
        held[0].continue_()
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_label("Prompt")).to_have_value("typed early")
        expect(page.locator(".prefix").first).to_have_text("abcdefgh")


def test_a_stream_that_breaks_is_told_in_words(browser: Browser) -> None:
    with serving(gateway_app(FakeBackend(broken))) as origin, visit(browser, origin) as here:
        side = ask(here.page)
        expect(side.get_by_role("alert")).to_contain_text("replica")
        expect(side.locator(".prefix")).to_have_text("abcdefgh")


def test_a_running_answer_can_be_stopped(browser: Browser) -> None:
    backend = FakeBackend(renoising, hold_after=2)
    with serving(gateway_app(backend)) as origin, visit(browser, origin) as here:
        side = ask(here.page)
        expect(side.get_by_role("listitem")).to_have_count(8)
        here.page.get_by_role("button", name="Stop").click()
        expect(here.page.get_by_role("button", name="Run")).to_be_enabled()
        expect(side.get_by_role("alert")).to_be_hidden()


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(browser: Browser) -> None:
    backend = FakeBackend(renoising)
    with serving(gateway_app(backend, settings=KEYED)) as origin, visit(browser, origin) as here:
        here.allowed = ("status of 401",)
        page = here.page
        side = ask(page)
        page.get_by_role("dialog").get_by_label("Key").fill("wrong-key")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("refused")
        page.get_by_role("dialog").get_by_label("Key").fill("right-key")
        page.keyboard.press("Enter")
        expect(side.locator(".prefix")).to_have_text("abcdefgh")
        page.reload()
        expect(ask(page).locator(".prefix")).to_have_text("abcdefgh")
        assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]


def test_it_works_below_a_prefix_that_a_proxy_takes_away(browser: Browser) -> None:
    app = gateway_app(FakeBackend(renoising))

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        below = {"path": scope["path"].removeprefix("/easel")}
        await app({**scope, **below}, receive, send)

    with serving(proxy) as origin, visit(browser, f"{origin}/easel") as here:
        expect(ask(here.page).locator(".prefix")).to_have_text("abcdefgh")


def test_who_gives_no_key_is_told_why_nothing_happens(browser: Browser) -> None:
    app = gateway_app(FakeBackend(renoising), settings=KEYED)
    with serving(app) as origin, visit(browser, origin) as here:
        here.page.get_by_role("link", name="Cluster").click()
        here.page.get_by_role("button", name="Cancel").click()
        expect(here.page.get_by_role("alert")).to_contain_text("have a key")


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    app = gateway_app(FakeBackend(renoising))
    with serving(app) as origin, visit(browser, origin, color_scheme="dark") as here:
        dark = here.page.evaluate(ground)
        here.page.get_by_role("button", name="Switch to the light theme").click()
        light = here.page.evaluate(ground)
        here.page.reload()
        expect(here.page.get_by_role("button", name="Switch to the dark theme")).to_be_visible()
        assert here.page.evaluate(ground) == light != dark


def test_everything_is_reached_by_keyboard_and_has_a_name(browser: Browser) -> None:
    with serving(gateway_app(FakeBackend(renoising))) as origin, visit(browser, origin) as here:
        side = ask(here.page)
        expect(side.locator(".figures dl")).to_be_visible()
        nameless = here.page.evaluate(
            """() => [...document.querySelectorAll('button, input, select, textarea, progress, [role=img]')]
                .filter(one => one.checkVisibility())
                .filter(one => !one.labels?.length && !one.getAttribute('aria-label'))
                .filter(one => one.textContent.trim() === '')
                .map(one => one.outerHTML)"""
        )
        assert nameless == []
        reached: set[str] = set()
        for _ in range(40):
            here.page.keyboard.press("Tab")
            reached.add(here.page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert reached >= {"skip", "theme", "prompt", "run", "play", "scrubber", "pace", "compare", "measure"}
