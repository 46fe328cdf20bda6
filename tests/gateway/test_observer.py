"""What the log is told: a line a minute of refusals, and never too much."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.units import MINUTE, SECOND
from ratekeeper.gateway.observer import Done, Log, Observer, Refusals, Tally
from ratekeeper.gateway.reply import Fault
from ratekeeper.testing.clock import ManualClock

REFUSED = Done(
    request_id="rk_1", status=429, key="web", fault=Fault.BUSY, limit="60 rpm"
)
ANSWERED = Done(
    request_id="rk_2",
    status=200,
    kind="chat",
    key="web",
    team="search",
    provider="openai",
    account="openai/1",
    model="gpt-4o",
    waited_us=1,
    first_byte_us=230_000,
    took_us=812_001,
    input_tokens=120,
    output_tokens=0,
    cost_nano={"usd": 1_200_000},
    attempts=1,
)


class Kept(logging.Handler):
    """Keeps the lines of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "ratekeeper.gateway")
    return caplog


def test_eight_hundred_refusals_are_one_line(said: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    log = Log(clock.now_us)
    for _ in range(800):
        log.done(REFUSED)
        log.tick()
        clock.advance(30 / 800)
    log.shadowed("batch", "$50/day")
    log.tick()

    assert [] == said.messages

    clock.advance(30)
    log.tick()
    log.tick()
    log.close()

    assert [
        "refusals refused=800 shadow=1 seconds=60 "
        'by="web busy 60 rpm 800; batch shadow $50/day 1"'
    ] == said.messages


def test_what_was_counted_is_told_at_the_end(said: pytest.LogCaptureFixture) -> None:
    log = Log(ManualClock().now_us)
    log.done(REFUSED)
    log.close()

    assert ['refusals refused=1 by="web busy 60 rpm 1"'] == said.messages


def test_a_provider_that_is_down_is_named(said: pytest.LogCaptureFixture) -> None:
    log = Log(ManualClock().now_us)
    for fault in (Fault.UNREACHABLE, Fault.LATE, Fault.BUSY):
        log.done(
            Done(request_id="rk", status=502, key="web", provider="openai", fault=fault)
        )
    log.close()

    assert [
        'refusals refused=3 by="web unreachable openai 1; web late openai 1; web busy 1"'
    ] == said.messages


def test_the_next_minute_begins_with_the_next_refusal(
    said: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    log = Log(clock.now_us)
    log.done(REFUSED)
    clock.advance(60)
    log.tick()
    clock.advance(3600)
    log.done(REFUSED)
    clock.advance(59)
    log.tick()

    assert 1 == len(said.messages)


def test_good_requests_are_told_only_where_asked_for(
    said: pytest.LogCaptureFixture,
) -> None:
    Log(ManualClock().now_us).done(ANSWERED)

    assert [] == said.messages

    Log(ManualClock().now_us, requests=True).done(ANSWERED)

    assert [
        "request id=rk_2 key=web team=search kind=chat model=gpt-4o provider=openai "
        "account=openai/1 status=200 attempts=1 waited_ms=1 first_byte_ms=230 "
        'took_ms=813 input_tokens=120 output_tokens=0 cost="0.0012 usd"'
    ] == said.messages


def test_lines_are_json_where_asked_for(said: pytest.LogCaptureFixture) -> None:
    log = Log(ManualClock().now_us, as_json=True)
    log.done(REFUSED)
    log.close()
    log.set_aside("openai/1", "throttled", 1_500_000)
    log.back("openai/1")

    by = [{"key": "web", "why": "busy", "limit": "60 rpm", "calls": 1}]
    assert [
        {"event": "refusals", "refused": 1, "by": by},
        {
            "event": "set_aside",
            "account": "openai/1",
            "reason": "throttled",
            "seconds": 2,
        },
        {"event": "back", "account": "openai/1"},
    ] == [json.loads(line) for line in said.messages]


def test_an_account_that_is_set_aside_is_a_warning(
    said: pytest.LogCaptureFixture,
) -> None:
    Log(ManualClock().now_us).set_aside("openai/1", "billing", 3600 * SECOND)

    assert [("WARNING", "set_aside account=openai/1 reason=billing seconds=3600")] == [
        (one.levelname, one.message) for one in said.records
    ]


@pytest.mark.parametrize("as_json", [False, True])
@given(model=st.text(max_size=300))
def test_a_model_name_stays_on_one_short_line(as_json: bool, model: str) -> None:
    handler = Kept()
    logger = logging.getLogger("ratekeeper.gateway")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        log = Log(ManualClock().now_us, requests=True, as_json=as_json)
        log.done(Done(request_id="rk_1", status=200, model=model))
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)

    (line,) = handler.lines
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 80 * 12 + 200  # an escaped character may take twelve


def test_refusals_are_told_apart_in_bounded_room() -> None:
    tally = Tally()
    for number in range(5000):
        tally.note(Refusals(f"key-{number}", "busy", "60 rpm"), 0)
    tally.note(Refusals("key-1", "busy", "60 rpm"), 0)

    found = tally.take(MINUTE)

    assert found is not None
    assert (5001, 4990) == (found["refused"], found["others"])
    assert len(tally._counts) == 0


@given(
    kinds=st.lists(
        st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from(["busy", "shadow"]))
    )
)
def test_every_refusal_is_counted_once(kinds: list[tuple[str, str]]) -> None:
    tally = Tally()
    for key, why in kinds:
        tally.note(Refusals(key, why, ""), 0)

    found: Any = tally.take(MINUTE) or {}

    by = found.get("by", [])
    told = sum(one["calls"] for one in by) + found.get("others", 0)
    assert len(kinds) == told == found.get("refused", 0) + found.get("shadow", 0)
    assert sum(why == "shadow" for _, why in kinds) == found.get("shadow", 0)
    assert tally.take(2 * MINUTE) is None
    assert not tally.is_due(10 * MINUTE)


def test_an_observer_that_wants_nothing_hears_everything() -> None:
    nobody = Observer()
    nobody.done(ANSWERED)
    nobody.shadowed("web", "60 rpm")
    nobody.set_aside("openai/1", "throttled", 1)
    nobody.back("openai/1")
    nobody.reloaded()
    nobody.tick()
    nobody.close()

    assert not nobody.hears_all
