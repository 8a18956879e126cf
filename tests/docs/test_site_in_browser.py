"""The documentation in a real browser that reaches nothing but the site."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, expect
from starlette.staticfiles import StaticFiles

from tests.browser import DESK, PATIENCE, PHONE, Visit, chromium, serving


@contextmanager
def _reading(browser: Browser, origin: str, name: str, **options: Any) -> Generator[Visit]:
    """A page of the site, checked for complaints and strays when it ends well."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    here = Visit(context.new_page(), origin)
    here.page.on("console", here.hear)
    here.page.on("pageerror", lambda error: here.complaints.append(str(error)))
    here.page.on("request", here.see)
    try:
        here.page.goto(f"{origin}/{name}")
        yield here
        here.check()
    finally:
        context.close()


def test_the_search_finds_a_word_without_any_network(site: Path) -> None:
    with (
        serving(StaticFiles(directory=site)) as origin,
        chromium() as browser,
        _reading(browser, origin, "index.html", viewport=DESK) as here,
    ):
        here.page.keyboard.press("/")
        here.page.keyboard.type("preemption")
        found = here.page.locator(".md-search-result__item").first
        expect(found).to_contain_text(re.compile("preempt", re.IGNORECASE))
        here.keep("docs-search")


def test_pages_fit_a_phone_in_light_and_dark(site: Path) -> None:
    seen = (("index", "light"), ("concepts", "dark"), ("configuration", "dark"), ("operations", "light"))
    with serving(StaticFiles(directory=site)) as origin, chromium() as browser:
        for name, scheme in seen:
            with _reading(browser, origin, f"{name}.html", viewport=PHONE, color_scheme=scheme) as here:
                assert here.fits(), name
                here.keep(f"docs-{name}-{scheme}")
