"""What a request will take, read from its bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.catalog import PROVIDERS, find_provider
from ratekeeper.providers.facts import Endpoint, RequestFacts
from ratekeeper.providers.provider import counts_tokens

OPENAI = find_provider("openai")
ANTHROPIC = find_provider("anthropic")
CHAT = "/v1/chat/completions"
TEXT = "Tell me about the history of the town and of those who built it. " * 20

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "messages",
                    "input",
                    "content",
                    "type",
                    "text",
                    "tools",
                    "system",
                    "image_url",
                    "source",
                    "data",
                    "max_tokens",
                    "n",
                    "prompt",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def chat(**fields: object) -> RequestFacts:
    return read(OPENAI, CHAT, **fields)


def messages(**fields: object) -> RequestFacts:
    return read(ANTHROPIC, "/v1/messages", **fields)


def read(provider: object, path: str, **fields: object) -> RequestFacts:
    body = json.dumps(fields).encode()
    facts = provider.read_request("POST", path, body)  # type: ignore[attr-defined]  # any provider
    assert isinstance(facts, RequestFacts)
    return facts


def said(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    ("provider", "method", "path", "endpoint"),
    [
        ("openai", "POST", "/v1/chat/completions", Endpoint.CHAT),
        ("openai", "post", "/chat/completions?x=1", Endpoint.CHAT),
        ("openai", "POST", "/v1/chat/completions/", Endpoint.CHAT),
        ("openai", "POST", "/openai/deployments/x/chat/completions", Endpoint.CHAT),
        ("openai", "POST", "/v1/completions", Endpoint.CHAT),
        ("openai", "POST", "/v1/responses", Endpoint.RESPONSES),
        ("openai", "POST", "/v1/embeddings", Endpoint.EMBEDDINGS),
        ("openai", "GET", "/v1/chat/completions", Endpoint.OTHER),
        ("openai", "GET", "/v1/responses/resp_1", Endpoint.OTHER),
        ("openai", "POST", "/v1/responses/resp_1/cancel", Endpoint.OTHER),
        ("openai", "GET", "/v1/models", Endpoint.OTHER),
        ("openai", "POST", "/v1/files", Endpoint.OTHER),
        ("openai", "POST", "", Endpoint.OTHER),
        ("anthropic", "POST", "/v1/messages", Endpoint.MESSAGES),
        ("anthropic", "POST", "/v1/messages?beta=true", Endpoint.MESSAGES),
        ("anthropic", "POST", "/v1/messages/count_tokens", Endpoint.COUNT_TOKENS),
        ("anthropic", "POST", "/v1/messages/batches", Endpoint.OTHER),
        ("anthropic", "GET", "/v1/messages", Endpoint.OTHER),
        ("deepseek", "POST", "/beta/chat/completions", Endpoint.CHAT),
    ],
)
def test_a_path_tells_what_is_asked_for(
    provider: str, method: str, path: str, endpoint: Endpoint
) -> None:
    facts = find_provider(provider).read_request(method, path, b"{}")

    assert endpoint is facts.endpoint


def test_a_chat_request_is_read() -> None:
    facts = chat(
        model="gpt-4o", messages=said(TEXT), max_tokens=50, n=2, stream=True, user="u"
    )

    assert ("gpt-4o", 50, 2, True) == (
        facts.model,
        facts.max_output,
        facts.choices,
        facts.stream,
    )
    assert len(TEXT) / 4 <= facts.input_tokens <= len(TEXT) / 3


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60}, 60),
        ({"max_tokens": 50, "max_completion_tokens": 60}, 60),
        ({"max_tokens": 80, "max_completion_tokens": 60}, 80),
        ({"max_output_tokens": 70}, None),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": None}, None),
        ({}, None),
    ],
)
def test_the_callers_bound_is_read_under_each_of_its_names(
    fields: dict[str, object], bound: int | None
) -> None:
    assert bound == chat(messages=said("x"), **fields).max_output


def test_a_response_is_bound_by_a_name_of_its_own() -> None:
    said = {"input": "x", "max_tokens": 1, "max_output_tokens": 70}

    assert 70 == read(OPENAI, "/v1/responses", **said).max_output
    assert read(OPENAI, "/v1/responses", input="x", max_tokens=1).max_output is None


@pytest.mark.parametrize(
    ("fields", "answers"),
    [
        ({}, 1),
        ({"n": 3}, 3),
        ({"n": 3.0}, 3),
        ({"n": "3"}, 3),
        ({"n": "3.0"}, 3),
        ({"n": -3}, 1),
        ({"n": True}, 1),
        ({"n": "three"}, 1),
        ({"n": float("nan")}, 1),
        ({"n": float("inf")}, 1),
        ({"n": 10**30}, 10_000),
        ({"n": 2, "best_of": 5}, 5),
        ({"prompt": "x"}, 1),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": ["x", "y", "z"]}, 3),
        ({"prompt": [[1, 2], [3]], "n": 4}, 8),
    ],
)
def test_answers_are_counted_however_many_ways_they_are_asked_for(
    fields: dict[str, object], answers: int
) -> None:
    assert answers == read(OPENAI, "/v1/completions", **fields).choices


def test_models_in_reserve_are_read_within_a_bound() -> None:
    names = ["a", 5, "b" * 1000, *["c"] * 100]
    facts = chat(model="m", messages=said("x"), models=names)

    assert ("a", "b" * 256) == facts.others[:2]
    assert 15 == len(facts.others)
    assert () == chat(models="a").others


def test_a_deployments_path_tells_the_model_whatever_the_body_says() -> None:
    path = "/openai/deployments/dear/chat/completions"

    assert "dear" == read(find_provider("azure"), path, model="cheap").model


def test_every_part_of_a_chat_request_counts() -> None:
    plain = chat(model="gpt-4o", messages=said("hi")).input_tokens
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": TEXT}}
    tool = {"type": "function", "function": {"name": "f", "description": TEXT}}
    richer = (
        {"messages": [*said("hi"), {"role": "system", "content": TEXT}]},
        {"messages": said([{"type": "text", "text": TEXT}])},
        {"messages": said([{"type": "image_url", "image_url": {"url": "https://x"}}])},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]},
        {"messages": [{"role": "user", "content": "hi", "name": TEXT}]},
        {"messages": said("hi"), "tools": [tool]},
        {"messages": said("hi"), "functions": [tool["function"]]},
        {"messages": said("hi"), "response_format": {"json_schema": {"x": TEXT}}},
        {"messages": said("hi"), "prediction": {"type": "content", "content": TEXT}},
        {"messages": said("hi"), "documents": [TEXT]},
    )

    assert all(
        chat(model="gpt-4o", **fields).input_tokens > plain + len(TEXT) // 5
        for fields in richer
    )


def test_what_reaches_no_model_does_not_count() -> None:
    plain = chat(messages=said("hi")).input_tokens

    assert (
        plain == chat(messages=said("hi"), metadata={"x": TEXT}, user=TEXT).input_tokens
    )


def test_a_responses_request_is_read() -> None:
    text = read(OPENAI, "/v1/responses", input=TEXT, max_output_tokens=9)
    parts = read(
        OPENAI,
        "/v1/responses",
        instructions=TEXT,
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": TEXT}]},
            {"type": "function_call_output", "call_id": "c", "output": TEXT},
        ],
    )

    assert (Endpoint.RESPONSES, 9) == (text.endpoint, text.max_output)
    assert text.input_tokens >= len(TEXT) // 4
    assert parts.input_tokens >= 3 * len(TEXT) // 4


@pytest.mark.parametrize(
    ("put", "least", "most"),
    [
        ("abcd", 1, 4),
        (["abcd", "abcd"], 2, 8),
        ([1, 2, 3], 3, 3),
        ([[1, 2], [3]], 3, 3),
        (TEXT, len(TEXT) // 4, len(TEXT) // 3),
    ],
)
def test_embeddings_take_texts_and_token_numbers_and_give_no_output(
    put: object, least: int, most: int
) -> None:
    facts = read(OPENAI, "/v1/embeddings", model="text-embedding-3-small", input=put)

    assert least <= facts.input_tokens <= most
    assert 0 == facts.max_output


def test_old_completions_take_token_numbers_too() -> None:
    facts = read(OPENAI, "/v1/completions", prompt=[1] * 1000)

    assert 1000 <= facts.input_tokens <= 1020


ASKED = "今天天气很好，我们一起去公园散步吧。人工智能的发展超出了预期。😀" * 20


@pytest.mark.parametrize(
    ("provider", "path", "request_"),
    [
        ("openai", CHAT, {"messages": said(ASKED), "model": "gpt-4o"}),
        ("openai", "/v1/responses", {"input": ASKED, "model": "gpt-5.4"}),
        ("openai", "/v1/embeddings", {"input": [ASKED], "model": "m"}),
        ("openai", "/v1/completions", {"prompt": ASKED, "model": "m"}),
        ("deepseek", CHAT, {"messages": said([{"type": "text", "text": ASKED}])}),
        ("anthropic", "/v1/messages", {"messages": said(ASKED), "system": ASKED}),
        ("anthropic", "/v1/messages", {"tools": [{"name": "f", "about": ASKED}]}),
        (
            "gemini",
            "/v1beta/models/gemini-3-pro:generateContent",
            {"contents": [{"parts": [{"text": ASKED}]}]},
        ),
        ("cohere", "/v2/chat", {"messages": said(ASKED), "model": "command-a"}),
        (
            "bedrock",
            "/model/claude-3-haiku/converse",
            {"messages": said([{"text": ASKED}])},
        ),
    ],
)
def test_a_prompt_sent_in_escapes_counts_as_what_it_says(
    provider: str, path: str, request_: dict[str, object]
) -> None:
    """Python writes JSON so unless told otherwise: six bytes for a character."""
    escaped = json.dumps(request_).encode()
    plain = json.dumps(request_, ensure_ascii=False).encode()
    marked = b"\xef\xbb\xbf" + plain
    asked = [
        find_provider(provider).read_request("POST", path, body)
        for body in (escaped, plain, marked, plain.decode().encode("utf-16"))
    ]

    assert escaped.isascii()
    assert [asked[1]] * 4 == asked
    assert asked[0].input_tokens > len(ASKED) // 2
    assert asked[0].estimate is not None
    assert asked[0].estimate.script.startswith("cjk")


def test_what_the_provider_keeps_of_a_conversation_sets_a_call_apart() -> None:
    alone = read(OPENAI, "/v1/responses", model="gpt-5.4", input="漢" * 90)
    chained = read(
        OPENAI,
        "/v1/responses",
        model="gpt-5.4",
        input="漢" * 90,
        previous_response_id="r",
    )
    with_tool = messages(model="claude-sonnet-5", messages=said(TEXT), tools=[{}])
    estimates = [one.estimate for one in (alone, chained, with_tool)]
    assert all(estimates)

    assert ["cjk", "cjk unseen", "latin tools"] == [
        one.script for one in estimates if one is not None
    ]
    assert alone.input_tokens == chained.input_tokens


def test_a_frame_is_added_for_each_message_and_each_tool() -> None:
    """7 for each message and for the whole, 10 a tool; 125 % where it is corrected."""
    tool = {"type": "function"}  # 19 characters, written out
    one = chat(model="gpt-4o", messages=said("hi"))
    three = chat(model="gpt-4o", messages=said("hi") * 3)
    tools = chat(model="gpt-4o", messages=said("hi"), tools=[tool])
    alone = messages(model="claude-sonnet-5", messages=said("hi"), stream=True)
    with_tool = messages(model="claude-sonnet-5", messages=said("hi"), tools=[tool])

    assert (1 + 2 * 7, 3 + 4 * 7) == (one.input_tokens, three.input_tokens)
    assert 1 + 5 + 2 * 7 + 10 <= tools.input_tokens <= 1 + 10 + 2 * 7 + 10
    assert 2 + 18 == alone.input_tokens  # each part raised, and rounded up
    assert with_tool.input_tokens >= alone.input_tokens + 410 * 1.25
    assert alone.stream
    assert not with_tool.stream


def test_every_part_of_a_message_request_counts() -> None:
    plain = messages(model="claude-sonnet-5", max_tokens=5, messages=said("hi"))
    tool = {"name": "f", "input_schema": {"type": "object"}}
    richer = (
        {"messages": said("hi"), "system": TEXT},
        {"messages": said("hi"), "system": [{"type": "text", "text": TEXT}]},
        {"messages": said("hi"), "tools": [tool]},
        {"messages": said([{"type": "image", "source": {"data": "x"}}])},
        {"messages": said([{"type": "tool_use", "name": "f", "input": {"x": TEXT}}])},
        {"messages": said([{"type": "tool_result", "content": TEXT}])},
        {
            "messages": said(
                [{"type": "tool_result", "content": [{"type": "text", "text": TEXT}]}]
            )
        },
        {"messages": said([{"type": "thinking", "thinking": TEXT}])},
    )

    assert all(
        messages(model="claude-sonnet-5", **fields).input_tokens
        > plain.input_tokens + len(TEXT) // 5
        for fields in richer
    )
    assert (5, 1) == (plain.max_output, plain.choices)


def test_a_model_with_a_finer_tokenizer_takes_more_tokens() -> None:
    chinese = said("今天天气很好我们一起去公园散步吧" * 10)

    assert (
        chat(model="gpt-4", messages=chinese).input_tokens
        > chat(model="gpt-4o", messages=chinese).input_tokens
    )


def test_a_body_that_is_no_object_is_guessed_at_by_its_length() -> None:
    assert chat().input_tokens > 0
    assert 25 == OPENAI.read_request("POST", CHAT, b"x" * 99).input_tokens
    assert 25 == ANTHROPIC.read_request("POST", "/messages", b"x" * 99).input_tokens


def test_a_models_name_is_cut_to_a_sensible_length() -> None:
    assert 256 == len(chat(model="x" * 100_000, messages=said("x")).model)


def test_an_absurd_number_of_choices_is_bounded() -> None:
    assert 10_000 == chat(messages=said("x"), n=10**9).choices


@given(JSON | st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_any_json_at_all_is_read(value: object) -> None:
    body = json.dumps(value).encode()
    for provider in PROVIDERS.values():
        for path in (CHAT, "/v1/responses", "/v1/embeddings", "/v1/messages"):
            facts = provider.read_request("POST", path, body)
            costs = provider.costs(facts)

            assert facts.input_tokens >= 0
            assert all(
                costs.reserved[u] >= costs.charged[u] >= 0 for u in costs.charged
            )


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_a_body_that_is_decoded_already_is_read_alike(value: object) -> None:
    body = json.dumps(value).encode()
    for provider in PROVIDERS.values():
        for path in (CHAT, "/v1/embeddings", "/v1/messages", "/v2/chat"):
            facts = provider.read_request("POST", path, body)

            assert facts == provider.read_request("POST", path, json.loads(body))


@given(st.binary(max_size=200), st.text(max_size=40), st.text(max_size=8))
def test_any_bytes_at_all_are_read(body: bytes, path: str, method: str) -> None:
    for provider in PROVIDERS.values():
        provider.read_request("POST", CHAT, body)
        facts = provider.read_request(method, path, body)

        assert facts.endpoint in Endpoint


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("/v1/messages/count_tokens", True),
        ("/v1beta/models/gemini-2.5-pro:countTokens", True),
        ("/v1/messages", False),
        ("/v1beta/models/gemini-2.5-pro:generateContent", False),
        ("/chat/completions", False),
        ("/v1/models", False),
    ],
)
def test_a_path_tells_whether_tokens_are_counted(path: str, counts: bool) -> None:
    assert counts is counts_tokens(path)


@pytest.mark.parametrize("said", [True, 1, 1.0, "true", " TRUE ", "yes"])
@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("openai", CHAT),
        ("openai", "/v1/responses"),
        ("anthropic", "/v1/messages"),
        ("gemini", "/v1beta/interactions"),
        ("cohere", "/v2/chat"),
    ],
)
def test_a_flag_is_set_however_servers_let_it_be_written(
    said: object, provider: str, path: str
) -> None:
    facts = read(find_provider(provider), path, stream=said, background=said)

    assert facts.stream
    assert facts.background is path.endswith(("/responses", "/interactions"))


@pytest.mark.parametrize("said", [False, 2, None, "false", "", [], {}, [1]])
def test_a_flag_is_not_set_by_anything_else(said: object) -> None:
    facts = chat(stream=said, background=said)

    assert not facts.stream
    assert not facts.background


FORM = b'--B\r\ncontent-disposition: form-data; name="n"\r\n\r\n%b\r\n--B--\r\n'


@pytest.mark.parametrize(
    ("path", "body", "pictures"),
    [
        ("/v1/images/generations", b'{"n": 10}', 10),
        ("/images/generations/?x=y", b'{"n": "4"}', 4),
        ("/v1/images/generations", b'{"n": -3}', 1),
        ("/v1/images/generations", b"[]", 1),
        ("/v1/images/edits", FORM % b"10", 10),
        ("/v1/images/variations", b"\r\n" + FORM % b"3", 3),
        ("/v1/images/edits", FORM % b"\xff", 1),
        ("/v1/images/edits", FORM.replace(b'"n"', b'"x"') % b"10", 1),
        ("/v1/images/edits", (FORM % b"10")[:-4], 1),
        ("/v1/audio/speech", b'{"n": 10}', 1),
        ("/v1/images/generations", {"n": 2}, 2),
    ],
)
def test_each_picture_that_is_asked_for_counts(
    path: str, body: bytes | dict[str, object], pictures: int
) -> None:
    facts = OPENAI.read_request("POST", path, body)

    assert (Endpoint.OTHER, pictures) == (facts.endpoint, facts.choices)


def test_a_conversation_that_is_compacted_is_read_by_a_model() -> None:
    facts = read(OPENAI, "/v1/responses/compact", model="gpt-5", input=TEXT)

    assert Endpoint.RESPONSES is facts.endpoint
    assert facts.input_tokens > 200


@pytest.mark.parametrize(
    ("said", "is_fast"),
    [
        ({}, False),
        ({"speed": None}, False),
        ({"speed": "standard"}, False),
        ({"speed": "fast"}, True),
        ({"speed": ["fast"]}, True),
    ],
)
def test_a_message_may_be_asked_for_at_another_price(
    said: dict[str, object], *, is_fast: bool
) -> None:
    assert is_fast is messages(model="claude-opus-4-6", **said).is_fast
