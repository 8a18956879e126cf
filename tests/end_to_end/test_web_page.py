"""The web page on a real cluster, in a real browser: as its reader would use it."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from easel.cluster.lifecycle import RunningCluster
from easel.demo.tasks import TaskName
from tests.browser import PATIENCE, PHONE, Visit, chromium, visit
from tests.end_to_end.clients import puzzles

pytestmark = pytest.mark.end_to_end

PUZZLE = "sudoku 615342/342.../.34265/.26..3/4.3521/.51.34"
SOLVED = "615342/342156/134265/526413/463521/251634"
DIGITS = SOLVED.replace("/", "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def here(browser: Browser, cluster: RunningCluster) -> Iterator[Visit]:
    with visit(browser, cluster.base_url) as opened:
        yield opened


def side(page: Page, name: str = "A") -> Locator:
    return page.get_by_role("article", name=f"Setting {name}")


def ask(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_role("button", name="Run").click()


def wait_for_end(page: Page, *names: str) -> None:
    for name in names or ("A",):
        expect(side(page, name).locator(".figures dl")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Play")).to_be_visible(timeout=PATIENCE)


def seek(page: Page, *keys: str) -> None:
    """Through the replay by keyboard."""
    page.get_by_role("slider", name="Step of the replay").focus()
    for key in keys:
        page.keyboard.press(key)


def test_a_puzzle_is_typed_its_canvas_settles_and_the_answer_appears(here: Visit) -> None:
    page = here.page
    page.evaluate(
        """() => {
            window.frames_seen = [];
            const side = document.querySelector('[data-side="A"].side');
            new MutationObserver(() => window.frames_seen.push(Number(side.dataset.frame)))
                .observe(side, {attributes: true, attributeFilter: ['data-frame']});
        }"""
    )
    page.get_by_role("group", name="Setting A").get_by_label("Commit rule").select_option("static_schedule")
    ask(page, PUZZLE)
    expect(side(page).locator(".verdict")).to_have_text("✓ Right", timeout=PATIENCE)
    assert side(page).locator(".prefix").inner_text().replace(" ", "") == SOLVED
    assert "".join(side(page).get_by_role("cell").all_inner_texts()) == DIGITS
    seen: list[int] = page.evaluate("window.frames_seen")
    assert len(set(seen)) > 4  # it moved, and ended where it should
    assert seen[-1] == max(seen)


def test_the_steps_are_replayed_by_keyboard(here: Visit) -> None:
    page = here.page
    ask(page, PUZZLE)
    wait_for_end(page)
    seek(page, "Home")
    cells = side(page).get_by_role("listitem")
    assert cells.count() == 32
    assert cells.locator("nth=0").get_attribute("data-kind") == "prompt"
    assert side(page).locator(".verdict").inner_text() == ""
    seek(page, "End")
    expect(side(page).locator(".verdict")).to_have_text("✓ Right")
    seek(page, "Home", *["ArrowRight"] * 5)
    here.keep("web-playground-light")


def test_a_cell_tells_in_words_what_its_colour_says(here: Visit) -> None:
    page = here.page
    ask(page, PUZZLE)
    wait_for_end(page)
    seek(page, "Home")
    side(page).get_by_role("listitem").first.focus()
    page.keyboard.press("End")
    words = side(page).locator(".inspector").inner_text()
    assert re.fullmatch(r"position 32: “.”, decided in step 1, just now, [\d.]+ %, \w+", words)
    assert side(page).get_by_role("listitem").last.get_attribute("aria-label") == words


def test_two_settings_are_compared_on_the_same_prompt_and_seed(
    browser: Browser, cluster: RunningCluster
) -> None:
    with visit(browser, cluster.base_url, color_scheme="dark") as here:
        page = here.page
        page.get_by_label("Compare two settings").check()
        page.get_by_label("Seed").fill("7")
        ask(page, PUZZLE)
        wait_for_end(page, "A", "B")
        steps = [int(fact(side(page, name), "Steps")) for name in ("A", "B")]
        assert steps[0] < steps[1] <= 16  # the other setting takes eight steps for each of two blocks
        for name in ("A", "B"):
            expect(side(page, name).locator(".caption")).to_contain_text("seed 7")
        seek(page, "Home", *["ArrowRight"] * 7)
        here.keep("web-playground-dark")


def fact(part: Locator, name: str) -> str:
    return (
        part.locator("dl > div")
        .filter(has=part.page.get_by_text(name, exact=True))
        .locator("dd")
        .inner_text()
    )


def test_questions_are_asked_and_counted_with_each_setting(here: Visit) -> None:
    page = here.page
    page.get_by_label("Compare two settings").check()
    page.get_by_label("Questions", exact=True).select_option("10")
    page.get_by_role("button", name="Ask them").click()
    rows = page.get_by_role("region", name="Accuracy of each setting").locator("tbody tr")
    for row in (rows.nth(0), rows.nth(1)):
        expect(row).to_contain_text("of 10", timeout=PATIENCE)
        right = int(row.locator("td").first.inner_text().split()[0])
        assert right >= 7


@pytest.mark.parametrize("kind", list(TaskName))
def test_every_kind_of_question_has_a_verdict(here: Visit, kind: TaskName) -> None:
    (task,) = puzzles(kind, 1, seed=5)
    ask(here.page, task.prompt)
    expect(side(here.page).locator(".verdict")).to_have_text(re.compile("Right|Wrong"), timeout=PATIENCE)


def test_what_the_server_refuses_is_told_in_words(here: Visit) -> None:
    here.allowed = ("status of 400",)
    page = here.page
    page.get_by_label("Tokens, at most").fill("100000")
    ask(page, PUZZLE)
    expect(side(page).get_by_role("alert")).to_contain_text("max_tokens")
    page.get_by_label("Tokens, at most").fill("")
    ask(page, PUZZLE)
    wait_for_end(page)
    expect(side(page).get_by_role("alert")).to_be_hidden()


def test_it_fits_a_phone(browser: Browser, cluster: RunningCluster) -> None:
    with visit(browser, cluster.base_url, viewport=PHONE, has_touch=True) as here:
        page = here.page
        assert here.fits()
        ask(page, PUZZLE)
        wait_for_end(page)
        seek(page, "Home", "ArrowRight", "ArrowRight", "ArrowRight")
        assert here.fits()
        here.keep("web-playground-phone")
        page.get_by_label("Compare two settings").check()
        assert here.fits()
        page.get_by_role("link", name="Cluster").click()
        page.get_by_role("article").filter(has_text="serving").first.wait_for()
        assert here.fits()


def test_the_cluster_shows_its_replicas_and_where_a_request_s_time_went(here: Visit) -> None:
    page = here.page
    page.get_by_label("Questions", exact=True).select_option("100")
    page.get_by_role("button", name="Ask them").click()
    ask(page, PUZZLE)
    wait_for_end(page)
    page.get_by_role("link", name="Cluster").click()  # the questions go on
    replicas = page.locator("#replicas").get_by_role("article")
    expect(replicas).to_have_count(2)
    expect(page.get_by_role("img", name=re.compile("% refresh")).first).to_be_visible()
    # Only counting takes four blocks.
    counted = page.locator("#requests tr:has(td:nth-child(5):text-is('4'))")
    counted.get_by_role("button").first.click()
    events = page.get_by_role("list", name="Events of the request")
    for event in ("received", "placed", "prefilled", "block 4", "finished"):
        expect(events).to_contain_text(event)
    expect(page.get_by_role("heading", name="Faults")).to_be_visible()
    here.keep("web-cluster-light")
