"""The page's files as they are sent, and the colours they promise."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from easel.cluster.gateway.pages import CONTENT_SECURITY_POLICY
from easel.cluster.gateway.settings import GatewaySettings
from tests.cluster.gateway.fakes import MODEL, client_of, gateway_app, get, model_info, saying
from tests.repository import ROOT

WEB = ROOT / "cluster" / "gateway" / "web"
KEYED = GatewaySettings(api_keys=("key",))
SENT = sorted(file.name for file in WEB.iterdir() if file.name != "package.json")
TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
READABLE = 4.5  # WCAG 2.2, AA: text
VISIBLE = 3.0  # edges of controls, and what a picture needs to be understood

PALETTE = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);",
        (WEB / "palette.css").read_text(encoding="utf-8"),
    )
}
BANDS = [f"band-{band}" for band in range(5)]
TEXT = [
    *(("ink", ground) for ground in ("paper", "sheet", "sunk", *BANDS)),
    *(("quiet", ground) for ground in ("paper", "sheet", "sunk", *BANDS)),
    *(("accent", ground) for ground in ("paper", "sheet", "sunk")),
    *(("right", ground) for ground in ("paper", "sheet")),
    *(("wrong", ground) for ground in ("paper", "sheet", "sunk", "wrong-sheet")),
    ("on-accent", "accent"),
]
SHAPES = [
    ("edge", "sheet"),
    ("edge", "paper"),
    ("refresh", "sunk"),
    ("reuse", "sunk"),
    ("wrong", "sheet"),
    ("accent", "sheet"),
]


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("front", "ground"), TEXT)
def test_text_is_readable_on_its_ground(front: str, ground: str, scheme: int) -> None:
    assert contrast(PALETTE[front][scheme], PALETTE[ground][scheme]) >= READABLE


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("front", "ground"), SHAPES)
def test_shapes_stand_out_from_their_ground(front: str, ground: str, scheme: int) -> None:
    assert contrast(PALETTE[front][scheme], PALETTE[ground][scheme]) >= VISIBLE


@pytest.mark.parametrize("file", sorted(WEB.glob("*.css")), ids=lambda file: file.name)
def test_colours_are_named_in_one_place(file: Path) -> None:
    if file.name == "palette.css":
        return
    text = file.read_text(encoding="utf-8")
    assert re.findall(r"#[0-9a-f]{3,8}\b(?=[^{]*;)", text) == []


def test_a_wheel_carries_the_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["easel.cluster.gateway"]
    carried = {path for pattern in patterns for path in WEB.parent.glob(pattern)}
    assert carried >= set(WEB.iterdir())


@pytest.mark.asyncio
@pytest.mark.parametrize("name", SENT)
async def test_every_file_is_sent_with_its_type(name: str) -> None:
    answer = await get(gateway_app(saying("x")), f"/ui/{name}")
    assert answer.status_code == 200
    assert answer.content == (WEB / name).read_bytes()
    assert answer.headers["content-type"] == TYPES[name.rpartition(".")[2]]


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/", "/ui/main.js", "/ui/questions.json", "/ui/model.json"])
async def test_the_page_needs_no_key_and_is_kept_on_a_short_lead(path: str) -> None:
    answer = await get(gateway_app(saying("x"), settings=KEYED), path)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


def test_the_policy_allows_neither_other_origins_nor_inline_code() -> None:
    sources = [part.split()[1:] for part in CONTENT_SECURITY_POLICY.split("; ")]
    assert {source for part in sources for source in part} == {"'none'", "'self'", "'script'"}


def test_the_markup_has_nothing_that_the_policy_would_stop() -> None:
    markup = (WEB / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"\son\w+=|\sstyle=|<style|<script(?![^>]* src=)|javascript:|https?:", markup) == []
    assert all((WEB / name).is_file() for name in re.findall(r'"ui/([^"]+)"', markup))


@pytest.mark.asyncio
async def test_a_file_that_is_known_is_not_sent_again() -> None:
    async with client_of(gateway_app(saying("x"))) as client:
        first = await client.get("/ui/main.js")
        etag = first.headers["etag"]
        assert not etag.startswith("W/")
        again = await client.get("/ui/main.js", headers={"if-none-match": f'"other", {etag}'})
        changed = await client.get("/ui/main.js", headers={"if-none-match": '"other"'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert changed.status_code == 200


@pytest.mark.asyncio
async def test_only_the_page_s_own_files_are_sent() -> None:
    app = gateway_app(saying("x"))
    for name in ("package.json", "pages.py", "..%2fpages.py", "%2e%2e%2fpages.py", "", "nothing.js"):
        assert (await get(app, f"/ui/{name}")).status_code == 404, name


@pytest.mark.asyncio
async def test_questions_come_with_their_answers() -> None:
    questions = (await get(gateway_app(saying("x")), "/ui/questions.json")).json()
    assert questions == json.loads((ROOT / "demo" / "questions.json").read_text(encoding="utf-8"))


@pytest.mark.asyncio
@pytest.mark.parametrize(("settings", "asks"), [(None, False), (KEYED, True)])
async def test_the_page_learns_what_the_model_takes(settings: GatewaySettings | None, asks: bool) -> None:
    told = (await get(gateway_app(saying("x"), settings=settings), "/ui/model.json")).json()
    assert (told["model"], told["block_length"], told["asks_for_keys"]) == (MODEL, 8, asks)
    assert told["defaults"].keys() == model_info().family.options
    assert told["defaults"]["commit_rule"] == "confidence_threshold"


@pytest.mark.asyncio
async def test_the_page_is_no_part_of_the_api_s_document() -> None:
    paths = gateway_app(saying("x")).openapi()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/ui")]
