"""No text from outside makes a pattern search for long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from ratekeeper import Client
from ratekeeper.client import keys, refusals
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Endpoint, RequestFacts
from tests.client.clients import KEY

LONG = 200_000
LARGEST = 64 * 1024
MOST_S = 2.0  # of CPU; what is quadratic takes minutes
OPENAI = find_provider("openai")
PIECES = (
    "invalid content key token here your change insert wait retry try.again. Limit "
    "Requested requests.per. sk- bearer. a_ rate_limit spend_limit_ 1 1. 1h . * x"
)


def _long(piece: str) -> str:
    piece = piece.replace("again.", "again ").replace("per.", "per ")
    return piece * (LONG // len(piece)) + "!"


def _error(code: str, message: str) -> bytes:
    """Write an error of the most bytes that are read of one."""
    half = (LARGEST - 100) // (2 if message else 1)
    said = {"code": code[:half] + "!", "message": message[:half]}
    return json.dumps({"error": said}).encode()


def _in_stream(text: str) -> None:
    meter = OPENAI.meter(RequestFacts(endpoint=Endpoint.CHAT), "text/event-stream")
    said = f'data: {{"error": {{"code": "{text}", "message": "{text}"}}}}\n\n'
    meter.feed(said.encode())
    meter.failure(0)


READERS: dict[str, Callable[[str], object]] = {
    "error": lambda text: OPENAI.judge(200, {}, _error(text, text), 0),
    "code": lambda text: OPENAI.judge(200, {}, _error(text, ""), 0),
    "stream": _in_stream,
    "key": lambda text: keys.malformed(OPENAI, text),
    "masked": lambda text: keys.masked(text, KEY),
    "word": lambda text: refusals.code_of(f'{{"code": "{text}"}}'.encode()),
}


@pytest.mark.parametrize("piece", PIECES.split())
@pytest.mark.parametrize("reader", READERS)
def test_a_long_text_is_read_at_once(reader: str, piece: str) -> None:
    text = _long(piece)
    before = time.process_time()

    READERS[reader](text)

    assert MOST_S > time.process_time() - before


def test_a_key_longer_than_any_is_none_and_nothing_is_sent() -> None:
    with Client("openai", api_key=KEY, limits=["9 rpm"]) as ai:
        found = ai.validate_key("sk-" + "ab" * 10_000)

    assert ("malformed", None) == (found.status, found.round_trip_s)
    assert "longer than any key" in found.detail
