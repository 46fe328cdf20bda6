"""Official SDKs, unchanged, through the gateway: what docs/sdks.md ticks is run here."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import gates
from tests.gateway.sdks import stage
from tests.gateway.sdks.anthropic_python import Anthropic
from tests.gateway.sdks.forms import TEXT
from tests.gateway.sdks.genai_python import GenAI
from tests.gateway.sdks.node import NODE_SDKS
from tests.gateway.sdks.openai_python import OpenAI
from tests.gateway.sdks.playing import Sdk, each, now
from tests.gateway.sdks.provider import ENDLESS, MODEL, SLOW
from tests.gateway.sdks.stage import ODDS, Stage

ROOT = Path(__file__).parents[2]
SDKS: tuple[Sdk, ...] = (OpenAI(), Anthropic(), GenAI())
MODES = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
EVERY = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
COMPARED = [
    pytest.param(sdk, what, id=f"{sdk.name}-{what}")
    for sdk in SDKS
    for what in sdk.checks
]
BELOW = {
    "openai": "/p/openai",
    "anthropic": "/p/anthropic",
    "google-genai": "/p/gemini",
}
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage.stage(tmp_path_factory.mktemp("sdks")) as running:
        yield running


def play(
    sdk: Sdk, url: str, key: str, act: Callable[[Any], Awaitable[Any]], **options: Any
) -> Any:
    """Make a client, do something with it, and close it."""

    async def played() -> Any:
        ai = sdk.client(url, key, **options)
        try:
            return await act(ai)
        finally:
            await sdk.close(ai)

    return asyncio.run(played())


@MODES
@pytest.mark.parametrize(("sdk", "what"), COMPARED)
def test_an_sdk_gets_through_the_gateway_what_it_gets_straight(
    it: Stage, sdk: Sdk, what: str, is_async: bool
) -> None:
    check, seen = sdk.checks[what], it.provider.seen
    seen.clear()
    url = it.straight + sdk.there
    straight = play(sdk, url, gates.UPSTREAM_KEY, check, is_async=is_async)
    told = [one.told() for one in seen]
    seen.clear()
    url = it.through + sdk.here
    through = play(sdk, url, gates.SECRET, check, is_async=is_async)

    assert straight == through
    assert told == [one.told() for one in seen]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stage]:
    """A stage on which nothing has been asked, refused or set aside."""
    with stage.stage(tmp_path) as running:
        yield running


@MODES
@EVERY
def test_an_sdk_raises_its_own_class_for_each_refusal(
    fresh: Stage, sdk: Sdk, is_async: bool
) -> None:
    raised = {}
    for status, (path, key, text) in ODDS.items():

        async def ask(ai: Any, text: str = text) -> None:
            await sdk.ask(ai, model=MODEL, text=text)
            await sdk.ask(ai, model=MODEL, text=text)  # one a day is let in

        url = fresh.through + (path or sdk.here)
        with pytest.raises(sdk.errors[status]) as caught:
            play(sdk, url, key, ask, is_async=is_async)
        raised[status] = type(caught.value)

    assert sdk.errors == raised


@MODES
@EVERY
def test_an_sdks_own_retry_is_let_in(it: Stage, sdk: Sdk, is_async: bool) -> None:
    async def ask(ai: Any) -> list[Any]:
        return [await sdk.ask(ai, model=MODEL, text="hi") for _ in range(2)]

    url = it.through + sdk.here
    replies = play(sdk, url, stage.SHORT, ask, is_async=is_async, retries=2)

    assert 2 == len(replies)


@MODES
@EVERY
def test_an_sdks_own_timeout_ends_the_call_at_the_provider(
    it: Stage, sdk: Sdk, is_async: bool
) -> None:
    async def ask(ai: Any) -> None:
        with pytest.raises(sdk.timeouts):
            await sdk.ask(ai, model=SLOW, text="hi")

    url = it.through + sdk.here
    play(sdk, url, gates.SECRET, ask, is_async=is_async, timeout_s=0.7, retries=0)

    assert SLOW == it.provider.left.get(timeout=5)


@MODES
@EVERY
def test_leaving_in_mid_stream_ends_it_at_the_provider(
    it: Stage, sdk: Sdk, is_async: bool
) -> None:
    async def leave(ai: Any) -> int:
        stream = await sdk.stream(ai, model=ENDLESS)
        seen = 0
        async for _ in each(stream):
            seen += 1
            if seen == 3:
                break
        await now((stream.aclose if hasattr(stream, "aclose") else stream.close)())
        return seen

    url = it.through + sdk.here

    assert 3 == play(sdk, url, gates.SECRET, leave, is_async=is_async)
    assert ENDLESS == it.provider.left.get(timeout=5)


@MODES
@EVERY
def test_an_sdk_shows_the_headers_of_the_gateway(
    it: Stage, sdk: Sdk, is_async: bool
) -> None:
    url = it.through + sdk.here
    headers = play(sdk, url, gates.SECRET, sdk.headers, is_async=is_async)

    stage.look_at_headers(headers)


@MODES
@EVERY
def test_an_sdk_is_pointed_at_the_gateway_by_its_environment(
    it: Stage, sdk: Sdk, is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, key = sdk.variables
    monkeypatch.setenv(where, it.through + sdk.here)
    monkeypatch.setenv(key, gates.SECRET)
    it.provider.seen.clear()

    async def ask(ai: Any) -> Any:
        return await sdk.ask(ai, model=MODEL, text="hi")

    play(sdk, "", "", ask, is_async=is_async)

    assert 1 == len(it.provider.seen)


@pytest.mark.parametrize(("sdk", "what"), COMPARED)
def test_an_sdk_finds_all_of_it_below_one_provider_too(
    it: Stage, sdk: Sdk, what: str
) -> None:
    check, seen = sdk.checks[what], it.provider.seen
    seen.clear()
    straight = it.straight + sdk.there
    there = play(sdk, straight, gates.UPSTREAM_KEY, check, is_async=True)
    told = [one.told() for one in seen]
    seen.clear()
    through = it.through + BELOW[sdk.name]
    here = play(sdk, through, gates.SECRET, check, is_async=True)

    assert there == here
    assert told == [one.told() for one in seen]


@MODES
def test_anthropics_sdk_takes_the_host_alone_and_a_token(
    it: Stage, is_async: bool
) -> None:
    async def ask(ai: Any) -> Any:
        return await Anthropic().ask(ai)

    options = {"is_async": is_async, "auth_token": gates.SECRET}
    reply = play(Anthropic(), it.through, "", ask, **options)

    assert TEXT == reply.content[0].text


PAGES = pytest.mark.parametrize("page", ["sdks.md", "sdks.zh-CN.md"])
# Rows of the page that are no checks of one SDK, but tests above that all go through.
FOR_ALL = (
    "response headers",
    "its own error classes",
    "its own retries",
    "its own time-out",
    "leaving in mid-stream",
    "its environment variables",
)


def _table(page: str, nth: int) -> list[list[str]]:
    """Return the cells of a table on a page, its head first."""
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(r"(?:^\|.+\|\n)+", text, re.MULTILINE)[nth]
    rows = [line.strip("|").split("|") for line in found.splitlines()]
    return [[cell.strip() for cell in row] for row in (rows[0], *rows[2:])]


@PAGES
def test_the_page_ticks_what_is_run_and_nothing_else(page: str) -> None:
    head, *rows = _table(page, 0)
    words = [row[0] for row in _table("sdks.md", 0)[1:]]
    ticked = {
        (name, what)
        for what, row in zip(words, rows, strict=True)
        for name, cell in zip(head[1:], row[1:], strict=True)
        if cell
    }
    shown = ["`openai` (Python)", "`anthropic`", "`google-genai`"]
    shown += ["`openai` (Node)", "`@anthropic-ai/sdk`", "`@google/genai`"]
    checks = [sdk.checks for sdk in SDKS] + [sdk.checks for sdk in NODE_SDKS]
    run = {
        (name, what)
        for name, whats in zip(shown, checks, strict=True)
        for what in (*whats, *FOR_ALL)
    }

    assert run == ticked


@PAGES
def test_the_page_names_the_versions_that_are_run(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    versions = [(sdk.name, importlib.metadata.version(sdk.name)) for sdk in SDKS]
    versions += [(sdk.name, sdk.version()) for sdk in NODE_SDKS]
    named = [f"{name} {whole.rpartition('.')[0]}" for name, whole in versions]

    assert [] == [one for one in named if re.search(rf"{one}\b", text) is None]


@PAGES
def test_the_page_points_each_sdk_as_the_tests_do(page: str) -> None:
    shown = [[cell.strip("`") for cell in row[1:]] for row in _table(page, 1)[1:]]

    for sdks in (SDKS, NODE_SDKS):
        pointed = [[f"http://HOST:8080{one.here}", *one.variables] for one in sdks]
        assert pointed == shown


@pytest.mark.parametrize("page", ["gateway.md", "gateway.zh-CN.md"])
def test_the_gateways_page_names_the_classes_that_are_raised(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    row = re.compile(r"^\| (\d{3}) \|.*\| `(\w+)` \| `(\w+)` \|$", re.MULTILINE)
    shown = {int(status): names for status, *names in row.findall(text)}
    openai, anthropic, _ = (sdk.errors for sdk in SDKS)

    for status in ODDS:
        assert shown[status] == [openai[status].__name__, anthropic[status].__name__]
