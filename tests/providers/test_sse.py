"""The parser of events, against the standard and against httpx2's own decoder."""

from __future__ import annotations

import itertools
import time
import tracemalloc

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.sse import LARGEST_EVENT, ServerEvent, SseParser

LINES = st.sampled_from(
    [
        b"data: x",
        b"data:y",
        b"data: ",
        b"data",
        "data: 漢字 \u2028 é".encode(),
        b"data: {}",
        b"data: \xff\xfe",
        b"event: e",
        b"event:",
        b"id: 1",
        b"id: \x00",
        b"retry: 5",
        b"retry: x",
        b": comment",
        b":",
        b"nonsense",
        b"",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def httpx2_events(data: bytes) -> list[tuple[str, str]]:
    response = httpx2.Response(
        200,
        headers={"content-type": "text/event-stream; charset=utf-8"},
        content=data,
        request=httpx2.Request("GET", "http://localhost"),
    )
    return [
        (event.event, event.data)
        for event in httpx2.EventSource(response)
        if event.data  # httpx2 also gives events that have no data at all
    ]


@given(STREAMS | st.binary(max_size=300), st.lists(st.integers(0, 10**6), max_size=20))
def test_events_are_those_of_httpx2_wherever_the_bytes_are_cut(
    data: bytes, cuts: list[int]
) -> None:
    if data.endswith(b"\r"):
        data += b"\n"  # at the very end httpx2 waits for the line feed of a CR
    parser = SseParser()
    seen = [
        (event.type or "message", event.data.decode("utf-8", "replace"))
        for piece in pieces(data, cuts)
        for event in parser.feed(piece)
        if event.data
    ]

    assert httpx2_events(data) == seen


@given(STREAMS | st.binary(max_size=500), st.lists(st.integers(0, 10**6), max_size=20))
def test_cutting_the_bytes_changes_nothing(data: bytes, cuts: list[int]) -> None:
    parser = SseParser(largest=16)
    whole = SseParser(largest=16)
    cut = [event for piece in pieces(data, cuts) for event in parser.feed(piece)]

    assert whole.feed(data) == cut
    assert whole.dropped == parser.dropped


def test_an_event_at_the_bound_passes_and_one_byte_more_is_dropped() -> None:
    parser = SseParser(largest=10)
    events = parser.feed(b"data:12345\n\ndata:123456\n\n: 23456789\ndata:x\n\n")

    assert [ServerEvent("", b"12345"), ServerEvent("", b"x")] == events
    assert 1 == parser.dropped


def test_many_short_lines_add_up_to_the_bound() -> None:
    parser = SseParser(largest=20)
    events = parser.feed(b"data:1\n" * 50 + b"\ndata:x\n\n")

    assert [ServerEvent("", b"x")] == events
    assert 1 == parser.dropped


def test_an_oversized_event_ends_where_it_ends_wherever_it_was_cut() -> None:
    """The line feed that comes alone after the bound ends a line, not the event."""
    parser = SseParser(largest=20)
    events = [
        event
        for piece in (b"data: " + b"x" * 30, b"\n", b"data: y\n", b"\n", b"data: z\n\n")
        for event in parser.feed(piece)
    ]

    assert [ServerEvent("", b"z")] == events
    assert 1 == parser.dropped


def test_a_line_without_end_keeps_no_more_than_the_bound() -> None:
    parser = SseParser()
    chunk = b"x" * 65_536
    tracemalloc.start()
    for _ in range(1024):
        parser.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 3 * LARGEST_EVENT


def test_comments_for_hours_add_up_to_nothing() -> None:
    parser = SseParser(largest=100)
    for _ in range(1000):
        parser.feed(b": keep-alive\n")

    assert [ServerEvent("", b"x")] == parser.feed(b"data: x\n\n")


def test_a_megabyte_in_single_bytes_is_read_in_linear_time() -> None:
    parser = SseParser()
    began = time.perf_counter()
    for byte in (b"d", b"a", b"t", b"a", b":", *[b"x"] * 300_000, b"\n", b"\n"):
        parser.feed(byte)

    assert time.perf_counter() - began < 5


def test_an_event_type_is_cut_to_a_sensible_length() -> None:
    (event,) = SseParser().feed(b"event: " + b"e" * 100_000 + b"\ndata: x\n\n")

    assert 256 == len(event.type)
