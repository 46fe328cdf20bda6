"""Many calls at once: in order, bounded, and stopped when all would fail alike."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper import AuthenticationError, BillingStopped, ConfigError, ProviderError
from ratekeeper.client.bulk import Ledger
from ratekeeper.client.terms import Gate
from tests.client import clients, wire
from tests.client.clients import CHAT, OK, Told, error, virtual


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> clients.Opened:
    return clients.opener(kind)


class Echo:
    """A provider in memory that answers with the number it was asked, or an error.

    It counts how many calls it had at once; `hold` makes it wait until so many are.
    """

    def __init__(self, failures: dict[int, Any] | None = None) -> None:
        self.failures = failures or {}
        self.seen: list[int] = []
        self._guard = threading.Lock()

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        number = int(request.content.split(b'"seed":')[1].split(b"}")[0])
        with self._guard:
            self.seen.append(number)
        status, headers, body = self.failures.get(number, (200, {}, {"n": number}))
        return httpx2.Response(status, headers=headers, json=body)


def _requests(count: int) -> list[dict[str, Any]]:
    return [{**CHAT, "seed": number} for number in range(count)]


def test_results_are_in_order_and_failures_in_their_place(
    make: clients.Opened,
) -> None:
    echo = Echo({3: error(400), 7: error(404)})
    with make("openai", transport=httpx2.MockTransport(echo)) as ai:
        results = ai.batch(_requests(20), concurrency=4)

    good = [n for n in range(20) if n not in {3, 7}]
    assert [{"n": n} for n in good] == [r for r in results if isinstance(r, dict)]
    assert [3, 7] == [n for n, r in enumerate(results) if isinstance(r, ProviderError)]


def test_any_iterable_is_taken(make: clients.Opened) -> None:
    echo = Echo()
    with make("openai", transport=httpx2.MockTransport(echo)) as ai:
        given: list[Any] = [tuple(_requests(3)), iter(_requests(3)), []]
        results = [ai.batch(requests) for requests in given]

    assert [3, 3, 0] == [len(result) for result in results]


def test_an_async_iterable_is_taken_by_the_async_client_alone(
    kind: str, make: clients.Opened
) -> None:
    with make("openai", transport=httpx2.MockTransport(Echo())) as ai:
        if kind == "async":
            results = ai.batch(clients.anew(_requests(3)))
            assert [{"n": n} for n in range(3)] == results
        else:
            with pytest.raises(ConfigError, match="expected an iterable"):
                ai.batch(clients.anew(_requests(3)))


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, None])
def test_a_concurrency_below_one_is_refused(
    make: clients.Opened, concurrency: Any
) -> None:
    with make("openai") as ai, pytest.raises(ConfigError, match="at least 1"):
        ai.batch(_requests(1), concurrency=concurrency)


@pytest.mark.parametrize("requests", ["text", b"bytes", dict(CHAT), 7, None])
def test_what_is_no_list_of_requests_is_refused(
    make: clients.Opened, requests: Any
) -> None:
    with make("openai") as ai, pytest.raises(ConfigError, match="expected an iterable"):
        ai.batch(requests)


def test_an_item_that_cannot_be_sent_fails_in_its_place(make: clients.Opened) -> None:
    items = [7, {}, {**CHAT, "stream": True}, {**CHAT, "seed": 3}]
    with make("openai", transport=httpx2.MockTransport(Echo())) as ai:
        results = ai.batch(items)

    assert [ConfigError, ConfigError, ConfigError, dict] == [type(r) for r in results]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_calls_are_under_way_than_allowed(
    make: clients.Opened, concurrency: int
) -> None:
    answer = wire.Script(0.02, wire.http(200, wire.completion()))
    with wire.Wire(answer) as server, make(server.url) as ai:
        results = ai.batch(_requests(9), concurrency=concurrency)
        connections = server.connections

    assert 9 == sum(isinstance(result, dict) for result in results)
    assert connections <= concurrency


STOPS = {
    "a refused key": (error(401), AuthenticationError),
    "no permission": (error(403), ProviderError),
    "a scope is missing": (error(401, message="Missing scopes: x."), ProviderError),
    "no credit": (error(429, "insufficient_quota"), BillingStopped),
}


@pytest.mark.parametrize(("answer", "expected"), STOPS.values(), ids=STOPS)
def test_what_would_meet_all_stops_what_is_not_sent(
    make: clients.Opened, answer: Any, expected: type[Exception]
) -> None:
    echo = Echo(dict.fromkeys(range(4, 10_000), answer))
    with make("openai", transport=httpx2.MockTransport(echo)) as ai:
        results = ai.batch(_requests(10_000), concurrency=3)

    assert [{"n": n} for n in range(4)] == results[:4]
    assert all(isinstance(result, expected) for result in results[4:])
    assert len(echo.seen) <= 4 + 3


def test_calls_that_stand_in_line_are_stopped_at_once(make: clients.Opened) -> None:
    """Not when their turn comes: that may be in an hour."""
    limit = "30 requests/minute using leaky-bucket"
    refused = wire.Script(0.05, wire.http(401))
    with wire.Wire(refused) as server, make(server.url, limits=[limit]) as ai:
        began = time.perf_counter()
        results = ai.batch([CHAT] * 5, concurrency=5)
        took = time.perf_counter() - began
        sent = len(server.requests)

    assert 1 == sent
    assert took < 1.5  # the second in line would have left after 2 s
    assert [AuthenticationError] * 5 == [type(result) for result in results]


def test_calls_that_wait_to_be_tried_again_are_stopped_at_once(
    make: clients.Opened,
) -> None:
    scripts: list[wire.Script | bytes] = [
        wire.http(500, b"", "retry-after: 60"),
        wire.Script(0.05, wire.http(401)),
    ]
    with wire.Wire(*scripts) as server, make(server.url) as ai:
        results = ai.batch([CHAT] * 2, concurrency=2)
        sent = len(server.requests)

    assert 2 == sent
    assert [AuthenticationError] * 2 == [type(result) for result in results]


def test_what_is_under_way_has_its_own_result(make: clients.Opened) -> None:
    slow = wire.Script(0.2, wire.http(200, wire.completion()))
    with wire.Wire(slow, wire.http(401)) as server, make(server.url) as ai:
        results = ai.batch([CHAT] * 3, concurrency=2)

    kinds = [type(result) for result in results]
    assert {dict, AuthenticationError} == set(kinds[:2])
    assert AuthenticationError is kinds[2]


def test_what_is_held_back_is_not_sent_and_costs_nothing(kind: str) -> None:
    told = Told(OK)
    gate = Gate()
    gate.close(ConfigError("stopped"))
    with virtual(kind, told, limits=["5 requests/day"], attempts=1) as ai:
        with pytest.raises(ConfigError, match="stopped"):
            ai.do(lambda client: client._send(CHAT, gate))
        used = ai.used()

    assert ([], [0]) == (told.requests, used)


def test_what_the_iterable_raises_is_raised(make: clients.Opened) -> None:
    def give() -> Iterator[Any]:
        yield from _requests(2)
        msg = "the file ends here"
        raise OSError(msg)

    echo = Echo()
    with (
        make("openai", transport=httpx2.MockTransport(echo)) as ai,
        pytest.raises(OSError, match="the file ends here"),
    ):
        ai.batch(give())


def test_input_without_end_is_read_a_little_ahead_of_the_results(
    make: clients.Opened,
) -> None:
    taken = itertools.count()
    last = 0

    def give() -> Iterator[Any]:
        nonlocal last
        for last in taken:
            yield {**CHAT, "seed": last}

    with make("openai", transport=httpx2.MockTransport(Echo())) as ai:
        results = ai.stream_batch(give(), 50, concurrency=5)

    assert [{"n": n} for n in range(50)] == results
    assert last <= 50 + 4 * 5


def test_a_slow_first_result_bounds_what_is_read(make: clients.Opened) -> None:
    """However many could be sent meanwhile: results must not pile up."""
    taken = itertools.count()
    last = 0

    def give() -> Iterator[Any]:
        nonlocal last
        for last in taken:
            yield {**CHAT, "seed": last}

    good = wire.http(200, wire.completion())
    slow = wire.Script(0.3, good)
    with wire.Wire(slow, good) as server, make(server.url) as ai:
        ai.stream_batch(give(), 1, concurrency=2)

    assert last <= 1 + 4 * 2


def test_a_million_requests_are_taken_one_by_one() -> None:
    """What is kept does not grow with what has been given."""
    ledger = Ledger(20)
    tracemalloc.start()
    for number in range(20_000):
        place, _ = ledger.take()
        ledger.put(place, number)
        ledger.give()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert grown < 64 * 1024


def test_leaving_early_ends_the_threads() -> None:
    before = set(threading.enumerate())
    with clients.opener("sync")("openai", transport=httpx2.MockTransport(Echo())) as ai:
        ai.stream_batch(({**CHAT, "seed": n} for n in itertools.count()), 3)
        own = [one for one in threading.enumerate() if one not in before]
        for thread in own:
            thread.join(2)

    assert not any(thread.is_alive() for thread in own)


def test_leaving_early_sends_nothing_more() -> None:
    echo = Echo()
    before = set(threading.enumerate())
    with clients.opener("sync")(
        "openai",
        transport=httpx2.MockTransport(echo),
        limits=["600 requests/minute using leaky-bucket"],
    ) as ai:
        ai.stream_batch(({**CHAT, "seed": n} for n in itertools.count()), 1)
        for thread in set(threading.enumerate()) - before:
            thread.join(2)

    assert 1 == len(echo.seen)


async def _hang() -> AsyncIterator[Any]:
    yield {**CHAT, "seed": 0}
    msg = "no more"
    raise RuntimeError(msg)


def test_what_the_async_iterable_raises_is_raised() -> None:
    with (
        clients.opener("async")("openai", transport=httpx2.MockTransport(Echo())) as ai,
        pytest.raises(RuntimeError, match="no more"),
    ):
        ai.batch(_hang())


@given(
    st.permutations(range(12)),
    st.one_of(st.none(), st.integers(min_value=1, max_value=12)),
)
def test_the_ledger_gives_in_the_order_taken(
    order: list[int], ahead: int | None
) -> None:
    ledger = Ledger(ahead)
    waiting: list[int] = []
    given_back: list[int] = []
    places = iter(range(12))
    ranks = {place: order.index(place) for place in range(12)}
    while len(given_back) < 12:
        while ledger.has_room and (place := next(places, None)) is not None:
            waiting.append(ledger.take()[0])
            assert place == waiting[-1]
        assert ahead is None or len(waiting) <= ahead
        waiting.sort(key=lambda place: ranks[place])
        done = waiting.pop(0)
        ledger.put(done, done)
        while ledger.is_ready:
            given_back.append(ledger.give())

    assert list(range(12)) == given_back


def test_nothing_is_sent_for_an_empty_batch(kind: str) -> None:
    told = Told(OK)
    with virtual(kind, told) as ai:
        results = ai.batch([])

    assert ([], []) == (results, told.requests)
