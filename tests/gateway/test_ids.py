"""Which ids an answer names, and which a request refers to."""

import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway import ids
from ratekeeper.gateway.route import Route
from ratekeeper.gateway.sight import HEAD, Seen, Sight, made_in, sight_of
from ratekeeper.providers.facts import Dialect

CHAT = Route(Dialect.OPENAI, "/chat/completions")
RESPONSES = Route(Dialect.OPENAI, "/responses")

_NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/?#% "),
    min_size=1,
    max_size=30,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "name", "x", "file"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


def _names(seen: Iterable[Seen]) -> list[str]:
    return [one.name for one in seen]


def _openai(path: str) -> Route:
    return Route(Dialect.OPENAI, path)


@pytest.mark.parametrize(
    ("route", "method", "said", "made"),
    [
        (_openai("/files"), "POST", {}, True),
        (_openai("/files"), "GET", {}, False),
        (_openai("/fine_tuning/jobs"), "POST", {}, True),
        (RESPONSES, "POST", {}, True),
        (CHAT, "POST", {}, False),
        (CHAT, "POST", {"store": True}, True),
        (_openai("/embeddings"), "POST", {}, False),
        (Route(Dialect.ANTHROPIC, "/v1/messages"), "POST", {}, False),
        (Route(Dialect.ANTHROPIC, "/v1/messages/batches"), "POST", {}, True),
        (Route(Dialect.ANTHROPIC, "/v1/skills"), "POST", {}, True),
        (Route(Dialect.GEMINI, "/v1beta/cachedContents"), "POST", {}, True),
        (Route(Dialect.GEMINI, "/upload/v1beta/files"), "POST", {}, True),
        (Route(Dialect.GEMINI, "/v1beta/models/g:generateContent"), "POST", {}, False),
        (
            Route(Dialect.GEMINI, "/v1beta/models/g:batchGenerateContent"),
            "POST",
            {},
            True,
        ),
    ],
)
def test_what_makes_an_id(
    route: Route, method: str, said: dict[str, object], *, made: bool
) -> None:
    assert made == ids.makes(route, method, said)


@pytest.mark.parametrize(
    ("dialect", "path", "is_list"),
    [
        (Dialect.OPENAI, "/files", True),
        (Dialect.OPENAI, "/fine_tuning/jobs", True),
        (Dialect.OPENAI, "/chat/completions", True),
        (Dialect.OPENAI, "/files/file-1/content", False),
        (Dialect.OPENAI, "/containers/cntr_1/files", False),
        (Dialect.OPENAI, "/models", False),
        (Dialect.ANTHROPIC, "/v1/messages/batches", True),
        (Dialect.ANTHROPIC, "/v1/messages/batches/msgbatch_1/results", False),
        (Dialect.GEMINI, "/v1beta/files", True),
        (Dialect.GEMINI, "/v1beta/files/abc", False),
        (Dialect.GEMINI, "/v1beta/models", False),
        (Dialect.GEMINI, "/v1beta/models/veo/operations", True),
        (Dialect.GEMINI, "/v1beta/models/veo/operations/op1", False),
        (Dialect.GEMINI, "/v1beta/tunedModels/mine/operations", True),
    ],
)
def test_what_is_a_list(dialect: Dialect, path: str, *, is_list: bool) -> None:
    route = Route(dialect, path)

    assert is_list == ids.lists(route, "GET")
    assert not ids.lists(route, "POST")


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ({"object": "file", "id": "file-1"}, ["file-1"]),
        ({"batch_id": "batch_1", "name": "mine"}, ["batch_1"]),
        ({"job": {"id": "batch_1"}}, ["batch_1"]),
        ({"name": "file-old", "file": {"name": "file-old"}}, []),
        ({"id": "run_1", "thread_id": "thread_2"}, ["run_1", "thread_2"]),
        ({"data": [{"id": "other"}], "tools": {"id": "other"}}, []),
        ({"metadata": {"id": "other", "file": {"name": "other"}}, "id": "me"}, ["me"]),
        ([{"id": "other"}], []),
        ({"file": {"id": {"x": "other"}}, "output_file_id": "other"}, []),
    ],
)
def test_an_answer_names_what_it_made(answer: object, names: list[str]) -> None:
    assert names == _names(made_in(json.dumps(answer).encode())[0])


@pytest.mark.parametrize(
    "answer",
    [
        {"name": "files/abc", "uri": "https://x/files/abc"},
        {"file": {"name": "files/abc", "sizeBytes": "3"}},
    ],
)
def test_a_name_is_an_id_of_googles_that_its_caller_may_have_chosen(
    answer: object,
) -> None:
    body = json.dumps(answer).encode()
    sights = [
        sight_of(route, "POST", {}, [], is_own=False)
        for route in (Route(Dialect.GEMINI, "/upload/v1beta/files"), _openai("/files"))
    ]

    assert [[Seen("files/abc", is_chosen=True)], []] == [
        one.feed(body) for one in sights if one is not None
    ]


def test_a_word_is_no_id_that_was_made() -> None:
    assert [] == Sight([]).feed(b'{"id": "pdf"}')


@pytest.mark.parametrize("method", ["GET", "PATCH", "POST"])
def test_what_callers_wrote_in_a_batch_of_googles_names_nothing(method: str) -> None:
    said = {"uri": "files/a", "responsesFile": "files/b", "video": {"uri": "files/c"}}
    output = {
        "responsesFile": "files/out",
        "inlinedResponses": {"inlinedResponses": [{"metadata": said}]},
    }
    sight = sight_of(
        Route(Dialect.GEMINI, "/v1beta/batches/b1"), method, {}, [], is_own=True
    )
    assert sight is not None

    assert [Seen("files/out")] == sight.feed(json.dumps({"output": output}).encode())


def test_a_stream_names_it_in_its_first_event() -> None:
    first = (
        b'event: response.created\ndata: {"response": {"id": "resp_1", "x": {}}}\n\n'
    )

    assert ([Seen("resp_1")], True) == made_in(first + b'data: {"id": "later"}')


@given(st.dictionaries(st.text(max_size=5), _JSON, max_size=3), _NAMES)
def test_an_id_is_found_among_anything(others: dict[str, object], name: str) -> None:
    said = {**others, "id": name}

    assert name in _names(made_in(json.dumps(said).encode())[0])


@given(_JSON, st.integers(min_value=0))
def test_what_breaks_off_names_no_more_than_the_whole(said: object, at: int) -> None:
    head = json.dumps({"it": said}).encode()

    assert [] == made_in(head)[0]
    assert [] == made_in(head[: at % len(head)])[0]


@given(st.binary(max_size=200))
def test_no_bytes_are_too_odd_to_look_at(data: bytes) -> None:
    made_in(b"{" + data)
    found = ids.referred(RESPONSES, data)

    assert len(found) == len(set(found))


@given(_NAMES, st.lists(st.integers(1, 30), max_size=4))
def test_an_id_comes_in_sight_once_however_it_is_cut(
    name: str, sizes: list[int]
) -> None:
    name = f"id-{name}"
    data = json.dumps({"object": "file", "id": name, "more": [1]}).encode()
    sight, names = Sight([]), []
    for size in sizes:
        names += _names(sight.feed(data[:size]))
        data = data[size:]

    assert [name] == names + _names(sight.feed(data))


def test_what_is_not_in_the_head_is_not_looked_for() -> None:
    sight = Sight([])
    sight.feed(b'{"x": "' + b"x" * HEAD + b'", ')

    assert [] == sight.feed(b'"id": "late"}')


@given(st.lists(st.integers(1, 30), max_size=9))
def test_what_a_tool_made_is_seen_anywhere_however_it_is_cut(sizes: list[int]) -> None:
    said = {"id": "resp_1", "output": ["x" * 99, {"container_id": "cntr_1"}]}
    data = json.dumps(said).encode()
    sight = sight_of(RESPONSES, "POST", {}, ["resp_0"], is_own=False)
    assert sight is not None
    names = []
    for size in sizes:
        names += _names(sight.feed(data[:size]))
        data = data[size:]

    assert ["resp_1", "cntr_1"] == names + _names(sight.feed(data))


def test_what_a_model_writes_names_nothing() -> None:
    text = json.dumps({"container_id": "cntr_1"})
    sight = sight_of(RESPONSES, "POST", {}, [], is_own=False)
    assert sight is not None

    body = json.dumps({"id": "resp_1", "x": text}).encode()

    assert [Seen("resp_1")] == sight.feed(body)


def test_naming_what_was_there_gives_it_to_nobody() -> None:
    sight = Sight(["file-1"])

    assert [Seen("vsf_1")] == sight.feed(b'{"id": "file-1", "thread_id": "vsf_1"}')


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/files/file-1/content", ["file-1"]),
        ("/files/file%2D1", ["file-1"]),
        ("/files/%C2%A0file-1%20", ["file-1"]),
        ("/files/file-1%E2%80%8B/content", ["file-1"]),
        ("/fine_tuning/jobs/ftjob-1/cancel", ["ftjob-1"]),
        ("/threads/th1/runs/run1/steps", ["th1", "run1"]),
        ("/models/ft:gpt-4o:org::x1", ["ft:gpt-4o:org::x1"]),
        ("/models/ft:g:o::x1:ckpt-step-9", ["ft:g:o::x1:ckpt-step-9", "ft:g:o::x1"]),
        ("/files/file-1:x", ["file-1", "file-1:x"]),
        ("/chat/completions", []),
        ("/responses/input_tokens", []),
    ],
)
def test_a_path_refers_to_its_ids(path: str, found: list[str]) -> None:
    assert found == ids.referred(_openai(path), b"")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1beta/files/abc", "files/abc"),
        ("/v1beta/tunedModels/mine:generateContent", "tunedModels/mine"),
        ("/v1beta/models/veo/operations/op1", "operations/op1"),
        ("/v1beta/interactions/v1_x", "v1_x"),
    ],
)
def test_googles_names_have_two_parts(path: str, found: str) -> None:
    assert found in ids.referred(Route(Dialect.GEMINI, path), b"")


def test_calling_a_model_of_googles_refers_to_nothing() -> None:
    route = Route(Dialect.GEMINI, "/v1beta/models/gemini-2.5-flash:generateContent")

    assert [] == ids.referred(route, b'{"contents": [{"parts": [{"text": "hi"}]}]}')


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"previous_response_id": "resp_1"}, ["resp_1"]),
        ({"conversation": "conv_1"}, ["conv_1"]),
        ({"conversation": {"x": 1, "id": "conv_1"}}, ["conv_1"]),
        ({"input_file_id": "file-1", "endpoint": "/v1/responses"}, ["file-1"]),
        ({"input": [{"content": [{"type": "f", "file_id": "file-1"}]}]}, ["file-1"]),
        ({"tools": [{"vector_store_ids": ["vs1", "vs2"]}]}, ["vs1", "vs2"]),
        ({"cachedContent": "cachedContents/c1"}, ["cachedContents/c1"]),
        ({"fileData": {"fileUri": "https://g/v1beta/files/abc?x=1"}}, ["files/abc"]),
        ({"file_data": {"file_uri": "files/abc/"}}, ["files/abc"]),
        ({"fileUri": "https://g/v1beta/files/abc:download?alt=media"}, ["files/abc"]),
        ({"fileUri": "https://g/v1beta/files/abc#x"}, ["files/abc"]),
        ({"file_ids": [" a ", "b\u200b", "\u00a0c\n", "\ufeffd"]}, list("abcd")),
        ({"training_file": "ft:gpt-4o:org::x1"}, ["ft:gpt-4o:org::x1"]),
        ({"Previous_Response_ID": "resp_A"}, ["resp_A"]),
        ({"messages": [{"role": "user", "content": '"file_id": "x"'}]}, []),
        ({"file_id": None, "conversation": 3}, []),
    ],
)
def test_a_body_refers_to_its_ids(said: object, found: list[str]) -> None:
    body = json.dumps(said).encode()

    assert found == ids.referred(CHAT, body)
    assert found == ids.referred(CHAT, body.decode().encode("utf-16"))


@given(_NAMES, st.data())
def test_no_way_to_write_an_id_hides_it(name: str, data: st.DataObject) -> None:
    def spelt(text: str) -> str:
        return "".join(
            f"\\u{ord(letter):04x}" if data.draw(st.booleans()) else letter
            for letter in text
        )

    written = json.dumps(name, ensure_ascii=data.draw(st.booleans()))[1:-1]
    body = f'{{"a": 1, "{spelt("file_id")}" : "{written}"}}'

    assert [ids.normal(name)] == ids.referred(CHAT, body.encode())


@pytest.mark.parametrize(
    ("route", "said", "found"),
    [
        (_openai("/videos/edits"), {"video": {"id": "video_1"}}, ["video_1"]),
        (_openai("/videos"), {"characters": [{"id": "char_1"}]}, ["char_1"]),
        (
            Route(Dialect.GEMINI, "/v1beta/interactions"),
            {"input": [{"type": "video", "uri": "https://g/v1beta/files/abc"}]},
            ["files/abc"],
        ),
        (
            Route(Dialect.GEMINI, "/v1beta/models/veo:predictLongRunning"),
            {"instances": [{"video": {"gcsUri": "files/a", "uri": "files/b"}}]},
            ["files/a", "files/b"],
        ),
        (CHAT, {"video": {"id": "x"}, "uri": "files/abc"}, []),
    ],
)
def test_what_refers_to_an_id_in_some_families_alone(
    route: Route, said: object, found: list[str]
) -> None:
    assert found == ids.referred(route, json.dumps(said).encode())


def test_of_two_members_of_a_name_both_count() -> None:
    body = b'{"previous_response_id": "r1", "previous_response_id": "r2"}'

    assert ["r1", "r2"] == ids.referred(CHAT, body)


@pytest.mark.parametrize("file_ids", [["file-1"], ["a", "b"], []])
def test_ids_named_more_often_than_any_request_has_are_too_many(
    file_ids: list[str],
) -> None:
    body = json.dumps([{"file_ids": file_ids}] * (ids.MOST_TIMES + 1)).encode()

    with pytest.raises(ids.TooMany, match="20,000 times"):
        ids.referred(CHAT, body)


def test_names_are_not_escaped_without_end() -> None:
    with pytest.raises(ids.TooMany, match="escaped names"):
        ids.referred(CHAT, rb'{"\u0061": 1}' * ids.MOST_TIMES)


def test_one_file_may_be_named_in_each_request_of_a_batch() -> None:
    body = json.dumps([{"file_id": "file-1"}, {"file_id": "file-2"}] * 5000).encode()

    assert ["file-1", "file-2"] == ids.referred(CHAT, body)


def test_more_ids_than_any_request_has_are_too_many() -> None:
    def body(count: int) -> bytes:
        return json.dumps({"file_ids": [f"file-{at}" for at in range(count)]}).encode()

    assert ids.MOST == len(ids.referred(CHAT, body(ids.MOST)))
    with pytest.raises(ids.TooMany, match="2,000 ids"):
        ids.referred(CHAT, body(ids.MOST + 1))


@pytest.mark.parametrize("odd", [rb"\\", rb"\ud83d\ude00\u0061", b'"f\\u0069'])
def test_no_body_takes_more_memory_than_a_few_times_its_bytes(odd: bytes) -> None:
    body = b'{"file_id": "file-1", "conversation": "' + odd * 100_000 + b'"}'
    tracemalloc.start()
    found = ids.referred(CHAT, body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "file-1" == found[0]
    assert most < 4 * len(body)


@given(st.text())
def test_every_id_that_a_request_refers_to_may_be_looked_up(text: str) -> None:
    body = json.dumps({"file_id": text, "input": [{"file_id": "f\ud800"}]}).encode()
    found = ids.referred(CHAT, body)

    assert "f" == found[-1]
    assert all(name.encode() for name in found)


@given(text=st.text(), is_ascii=st.booleans())
def test_every_id_that_an_answer_names_may_be_written_down(
    text: str, *, is_ascii: bool
) -> None:
    said = json.dumps({"id": f"{text}\ud800"}, ensure_ascii=is_ascii)

    assert [] == made_in(said.encode(errors="surrogatepass"))[0]


def test_what_is_too_long_for_an_id_is_none() -> None:
    body = json.dumps({"file_id": "x" * 100_000}).encode()

    assert [] == ids.referred(CHAT, body)
