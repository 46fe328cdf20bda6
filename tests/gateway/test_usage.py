"""Usage that only comes on request: asked for, and taken out again to the byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratekeeper.gateway.usage import UsageFilter, ask, is_asked_for
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.facts import Dialect, RequestFacts
from ratekeeper.providers.facts import Endpoint as Asked
from ratekeeper.providers.sse import LARGEST_EVENT
from ratekeeper.providers.table import PROVIDERS
from ratekeeper.simulator.dialect import Answer, Endpoint
from ratekeeper.simulator.dialects import find_dialect

TRAPS = [
    '"usage":null',
    ',"usage":null}',
    '\\"usage":null',
    '"choices":[]',
    "usage",
    "\n\ndata: [DONE]\n\n",
    "\\",
    "{[\u2028",
]
TEXTS = st.sampled_from(TRAPS) | st.text(max_size=8)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.just("usage") | TEXTS, inner, max_size=3)
    ),
    max_leaves=6,
)
CHUNKS = st.dictionaries(TEXTS.filter(lambda name: name != "usage"), JSONS, max_size=5)
STYLES = [{}, {"separators": (",", ":")}, {"ensure_ascii": False}]


def filtered(parts: list[bytes]) -> bytes:
    taken = UsageFilter()
    return b"".join(map(taken.feed, parts)) + taken.end()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(data)) for place in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@given(
    said=st.lists(st.tuples(CHUNKS, st.integers(0, 5)), max_size=4),
    style=st.sampled_from(STYLES),
    end=st.sampled_from(["\n", "\r\n"]),
    comment=st.booleans(),
    places=st.lists(st.integers(0, 400), max_size=20),
)
def test_a_null_usage_is_taken_out_to_the_byte(
    said: list[tuple[dict[str, Any], int]],
    style: Any,
    end: str,
    comment: bool,
    places: list[int],
) -> None:
    plain, asked = "", ""
    for chunk, at in said:
        members = list(chunk.items())
        told = dict([*members[:at], ("usage", None), *members[at:]])
        before = f": ping{end}data: " if comment else "data: "
        plain += before + json.dumps(chunk, **style) + end + end
        asked += before + json.dumps(told, **style) + end + end
    done = f"data: [DONE]{end}{end}"
    data = (asked + done).encode("utf-8", "surrogatepass")

    assert (plain + done).encode() == filtered(cut(data, places))


@given(data=st.binary(max_size=200), places=st.lists(st.integers(0, 200)))
@example(data=b"data\r\rdata: \r\n\r", places=list(range(20)))
def test_what_is_no_chunk_passes_as_it_is(data: bytes, places: list[int]) -> None:
    assert data == filtered(cut(data, places))


@given(
    data=st.text(alphabet='data: {"usage"null,}[]\r\n\\', max_size=60),
    places=st.lists(st.integers(0, 60)),
)
def test_it_makes_no_difference_where_the_bytes_are_cut(
    data: str, places: list[int]
) -> None:
    whole = data.encode()

    assert filtered([whole]) == filtered(cut(whole, places))


def streamed(provider: str, body: bytes) -> list[bytes]:
    dialect = find_dialect(provider)
    call = dialect.read(Endpoint.CHAT, body, {})
    answer = Answer(
        request_id="1",
        created=1_764_000_000,
        words=('"usage":null} ', 'so "choices":[] ', "end"),
        truncated=False,
    )
    return [event.data for event in dialect.stream(call, answer)]


COMPATIBLE = sorted(
    name for name, one in PROVIDERS.items() if one.speaks is Dialect.OPENAI
)
STREAM = RequestFacts(endpoint=Asked.CHAT, stream=True)
BODY = b'{ "model": "m", "stream":true,"messages":[{"role":"user","content":"Hi"}]}'


@pytest.mark.parametrize("provider", COMPATIBLE)
def test_a_caller_of_any_provider_sees_the_stream_it_would_have_seen(
    provider: str,
) -> None:
    plain = b"".join(streamed(provider, BODY))
    if not is_asked_for(find_provider(provider), STREAM):
        assert b'"total_tokens"' in plain
        return
    asking = ask(BODY)
    assert asking is not None
    asked = streamed(provider, asking)

    assert b'"total_tokens"' not in plain
    assert b'"total_tokens"' in b"".join(asked)
    assert plain == filtered(asked)
    assert plain == filtered([b"".join(asked)])
    assert plain == filtered([bytes([byte]) for byte in b"".join(asked)])


def test_each_event_goes_on_when_it_is_whole() -> None:
    asking = ask(BODY)
    assert asking is not None
    taken = UsageFilter()
    passed = [taken.feed(event) for event in streamed("openai", asking)]

    assert streamed("openai", BODY) == [part for part in passed if part]
    assert b"" == taken.end()


@pytest.mark.parametrize(
    "kept",
    [
        # Azure's first chunk has no choices, and no usage either.
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n',
        b'data: {"choices":[{"index":0}],"usage":{"total_tokens":3}}\n\n',
        b'data: {"choices":[],"x":{"usage":null}}\n\n',
        b'data: ["usage",{"usage":null}]\n\n',
        b'data: {"choices":[{"delta":{"content":"\\"usage\\":null"}}]}\n\n',
        b'data: {"usage":"null","choices":[]}\n\n',
        b'data: {"us\\u0061ge":null,"x":[{"usage":null},{"usage":null}]}\n\n',
        b'data: {"us\\u0061ge":null,"x":["usage"]}\n\n',
        b'data: {"us\\u0061ge":null,"usage" :[],"x":["usage"]}\n\n',
        b': {"choices":[],"usage":null}\n\n',
        b'event: x\nid: "usage"\n\n',
        b'data: {"choices":[],"usage":null\n\n',
    ],
)
def test_what_only_looks_like_it_is_kept(kept: bytes) -> None:
    assert kept == filtered([kept])


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_last_chunk_goes_and_a_comment_beside_it_stays(end: bytes) -> None:
    lines = [
        b": ping",
        b'data: {"choices": [ ], "usage": {"total_tokens": 3}}',
        b"",
        b"data: [DONE]",
        b"",
        b"",
    ]
    data = end.join(lines)
    expected = end.join([b": ping", b"data: [DONE]", b"", b""])

    assert expected == filtered([data])
    assert expected == filtered([bytes([byte]) for byte in data])


def test_an_event_of_which_one_line_went_keeps_its_end() -> None:
    taken = UsageFilter()
    lines = (b'data: {"choices":[],"usage":{}}\r\n', b": pi", b"ng\r\n", b"\r\n")

    assert [b"", b": pi", b"ng\r\n", b"\r\n"] == [taken.feed(line) for line in lines]


def test_a_line_without_end_is_kept_no_longer_than_a_mebibyte() -> None:
    taken = UsageFilter()
    start = b'data: {"usage":null,"x":"'

    assert b"" == taken.feed(start)
    assert start + b"y" * LARGEST_EVENT == taken.feed(b"y" * LARGEST_EVENT)
    assert b'"}\n' == taken.feed(b'"}\n')
    assert b"data: {}\n" == taken.feed(b'data: {"usage":null}\n')


def test_a_long_line_that_comes_at_once_passes_as_it_is() -> None:
    line = b'data: {"usage":null,"x":"' + b"y" * LARGEST_EVENT + b'"}\n\n'

    assert line == filtered([line])


def test_a_comment_is_not_kept_back() -> None:
    taken = UsageFilter()

    passed = [taken.feed(part) for part in (b": pi", b"ng\r", b"\ndata", b": 1\n")]

    assert [b": pi", b"ng", b"\r\n", b"data: 1\n"] == passed


@given(
    body=st.dictionaries(TEXTS.filter(lambda x: x != "stream_options"), JSONS),
    style=st.sampled_from(STYLES),
)
def test_asking_changes_nothing_else(body: dict[str, Any], style: Any) -> None:
    sent = json.dumps({**body, "stream": True}, **style).encode(
        "utf-8", "surrogatepass"
    )

    asking = ask(sent)

    wanted = {"stream_options": {"include_usage": True}}
    assert asking is not None
    assert {**body, "stream": True, **wanted} == json.loads(asking)


@pytest.mark.parametrize(
    ("body", "asking"),
    [
        (b' {"a":1.50}', b' {"stream_options":{"include_usage":true},"a":1.50}'),
        (
            b'{"a":1.50,"stream_options":{"include_obfuscation":false}}',
            b'{"a":1.50,"stream_options":'
            b'{"include_obfuscation":false,"include_usage":true}}',
        ),
        (
            b'{"stream_options":{"include_usage":false},"b":"\\u00e9"}',
            b'{"stream_options":{"include_usage":true},"b":"\\u00e9"}',
        ),
        (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
        (
            b'{"x":"\\"stream_options\\""}',
            b'{"stream_options":{"include_usage":true},"x":"\\"stream_options\\""}',
        ),
        (
            b'{"x":{"stream_options":1}}',
            b'{"x":{"stream_options":1},"stream_options":{"include_usage":true}}',
        ),
        (b'{"stream_options": {"include_usage": true}}', None),  # the caller asks
        ('{"stream":true}'.encode("utf-16-le"), None),
        ('{"stream":true}'.encode("utf-16"), None),
        (b'{"stream_options":7}', None),  # the provider will say what is wrong
        (b'{"stream_options":', None),
        (b"", None),
        (b'{"data_sources":[]}', None),
    ],
)
def test_usage_is_asked_for_once(body: bytes, asking: bytes | None) -> None:
    assert asking == ask(body)


@pytest.mark.parametrize(
    ("endpoint", "stream", "asks"),
    [
        (Asked.CHAT, True, True),
        (Asked.CHAT, False, False),
        (Asked.RESPONSES, True, False),
        (Asked.MESSAGES, True, False),
        (Asked.OTHER, True, False),
    ],
)
def test_it_is_asked_for_where_it_does_not_come_by_itself(
    endpoint: Asked, stream: bool, asks: bool
) -> None:
    facts = RequestFacts(endpoint=endpoint, stream=stream)
    unknown = find_provider("https://llm.example.com/v1")

    assert asks is is_asked_for(unknown, facts)
