"""OpenAI's own words, written out from its documentation and from captured answers."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from ratekeeper.simulator.server import Simulator
from ratekeeper.testing import ManualClock
from tests.simulator.asking import ROLES, ask, chat, events

SAY_HELLO_TOKENS = 9  # 3 of the text, 3 of the message, 3 of the reply's opening


def simulator(*limits: str, **options: Any) -> Simulator:
    return Simulator("openai", limits, clock=ManualClock(), **options)


def test_a_completion_has_the_documented_shape() -> None:
    response = chat(simulator("10 rpm"), "output=2", max_tokens=5)
    body = response.json()
    text = body["choices"][0]["message"].pop("content")

    assert 200 == response.status_code
    assert 8 == len(text)
    assert body == {
        "id": body["id"],
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": "gpt-4o-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": SAY_HELLO_TOKENS,
            "completion_tokens": 2,
            "total_tokens": SAY_HELLO_TOKENS + 2,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_simulated",
    }


def test_an_answer_that_max_tokens_stops_says_so() -> None:
    body = chat(simulator("10 rpm"), "output=9", max_tokens=5).json()

    assert "length" == body["choices"][0]["finish_reason"]
    assert 5 == body["usage"]["completion_tokens"]


def test_every_answer_tells_how_the_limits_stand_with_go_durations() -> None:
    response = chat(simulator("60 rpm", "1000 tpm"), max_tokens=100)
    told = {k: v for k, v in response.headers.items() if k.startswith("x-ratelimit")}

    assert told == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "6s",
    }
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-organization"]


@pytest.mark.parametrize(
    ("limit", "reset"),
    [("5000 rpm", "12ms"), ("10 rpm", "6s"), ("10 requests/hour", "6m0s")],
)
def test_the_time_to_full_is_written_as_go_does(limit: str, reset: str) -> None:
    response = chat(simulator(limit))

    assert reset == response.headers["x-ratelimit-reset-requests"]


def test_a_call_over_the_request_limit_reads_as_openai_writes_it() -> None:
    provider = simulator("2 rpm")
    chat(provider)
    chat(provider)
    response = chat(provider)

    assert 429 == response.status_code
    assert "30" == response.headers["retry-after"]
    assert "0" == response.headers["x-ratelimit-remaining-requests"]
    assert response.json() == {
        "error": {
            "message": "Rate limit reached for gpt-4o-mini in organization "
            "org-simulated on requests per min (RPM): Limit 2, Used 2, Requested 1. "
            "Please try again in 30s. Visit "
            "https://platform.openai.com/account/rate-limits to learn more.",
            "type": "requests",
            "param": None,
            "code": "rate_limit_exceeded",
        }
    }


def test_a_call_over_the_token_limit_reads_as_openai_writes_it() -> None:
    provider = simulator("50k tpm")
    chat(provider, max_tokens=47_949)
    response = chat(provider, max_tokens=3_006)

    assert 429 == response.status_code
    assert "tokens" == response.json()["error"]["type"]
    assert response.json()["error"]["message"].startswith(
        "Rate limit reached for gpt-4o-mini in organization org-simulated on tokens per "
        "min (TPM): Limit 50000, Used 47949, Requested 3006. Please try again in 1.146s."
    )
    assert "2" == response.headers["retry-after"]


def test_a_call_larger_than_the_limit_is_told_that_no_wait_would_help() -> None:
    response = chat(simulator("30k tpm"), max_tokens=41_210)
    error = response.json()["error"]

    assert 429 == response.status_code
    assert "retry-after" not in response.headers
    assert "rate_limit_exceeded" == error["code"]
    assert error["message"].startswith("Request too large for gpt-4o-mini")
    assert "on tokens per min (TPM): Limit 30000, Requested 41210." in error["message"]
    assert "Please try again" not in error["message"]


@pytest.mark.parametrize(
    ("cue", "status", "error"),
    [
        (
            "status=401",
            401,
            {
                "message": "Incorrect API key provided: sk-…. You can find your API key "
                "at https://platform.openai.com/account/api-keys.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            },
        ),
        (
            "reason=billing",
            429,
            {
                "message": "You exceeded your current quota, please check your plan and "
                "billing details. For more information on this error, read the docs: "
                "https://platform.openai.com/docs/guides/error-codes/api-errors.",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            },
        ),
        (
            "status=500",
            500,
            {
                "message": "The server had an error while processing your request. "
                "Sorry about that!",
                "type": "server_error",
                "param": None,
                "code": None,
            },
        ),
    ],
)
def test_a_trouble_is_told_in_openais_words(
    cue: str, status: int, error: dict[str, Any]
) -> None:
    response = chat(simulator("10 rpm"), cue)

    assert status == response.status_code
    assert {"error": error} == response.json()


@pytest.mark.parametrize(
    ("cue", "status", "kind", "code"),
    [
        ("status=503", 503, "service_unavailable_error", "server_is_overloaded"),
        ("reason=slow_down", 429, "rate_limit_error", "slow_down"),
        (
            "reason=spend_limit",
            429,
            "insufficient_quota",
            "organization_spend_limit_exceeded",
        ),
        (
            "status=403",
            403,
            "request_forbidden",
            "unsupported_country_region_territory",
        ),
    ],
)
def test_a_trouble_has_openais_status_type_and_code(
    cue: str, status: int, kind: str, code: str
) -> None:
    response = chat(simulator("10 rpm"), cue)
    error = response.json()["error"]

    assert (status, kind, code) == (response.status_code, error["type"], error["code"])


def test_a_stream_is_a_role_then_text_then_a_reason_then_usage_then_done() -> None:
    response = chat(
        simulator("10 rpm"),
        "output=2",
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, done = [data for _, data in events(response)]
    opening, one, two, end, usage = chunks

    assert response.headers["content-type"].startswith("text/event-stream")
    assert "[DONE]" == done
    assert "chat.completion.chunk" == opening["object"]
    assert "assistant" == opening["choices"][0]["delta"]["role"]
    assert [4, 4] == [len(c["choices"][0]["delta"]["content"]) for c in (one, two)]
    assert end["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert [None] * 4 == [chunk["usage"] for chunk in chunks[:4]]
    assert [] == usage["choices"]
    assert SAY_HELLO_TOKENS + 2 == usage["usage"]["total_tokens"]


def test_a_stream_has_no_usage_unless_asked_for() -> None:
    response = chat(simulator("10 rpm"), "output=2", stream=True)

    assert "usage" not in response.text


def test_a_chat_stream_that_fails_ends_in_a_bare_error_chunk() -> None:
    response = chat(simulator("10 rpm"), "error=1, reason=throttled", stream=True)
    last = events(response)[-1][1]

    assert 200 == response.status_code
    assert ["error"] == list(last)
    assert "rate_limit_exceeded" == last["error"]["code"]


def respond(provider: Simulator, cue: str = "", **fields: Any) -> Any:
    body = {"model": "gpt-5.4", "input": "Say hello", **fields}
    return ask(provider, "/v1/responses", body, cue=cue)


def test_a_response_object_carries_its_text_and_usage() -> None:
    body = respond(simulator("10 rpm"), "output=2").json()

    assert ("response", "completed") == (body["object"], body["status"])
    assert "output_text" == body["output"][0]["content"][0]["type"]
    assert body["usage"] == {
        "input_tokens": SAY_HELLO_TOKENS,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": SAY_HELLO_TOKENS + 2,
    }


def test_a_response_that_max_output_tokens_stops_is_incomplete() -> None:
    body = respond(simulator("10 rpm"), "output=9", max_output_tokens=2).json()

    assert "incomplete" == body["status"]
    assert {"reason": "max_output_tokens"} == body["incomplete_details"]


def test_a_response_streams_its_events_in_the_documented_order() -> None:
    read = events(respond(simulator("10 rpm"), "output=1", stream=True))

    assert [name for name, _ in read] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [name for name, _ in read] == [data["type"] for _, data in read]
    assert list(range(9)) == [data["sequence_number"] for _, data in read]
    assert 1 == read[-1][1]["response"]["usage"]["output_tokens"]


def test_a_response_stream_that_fails_says_response_failed() -> None:
    response = respond(
        simulator("10 rpm"), "error=1, reason=throttled, output=5", stream=True
    )
    name, data = events(response)[-1]

    assert "response.failed" == name
    assert "failed" == data["response"]["status"]
    assert "rate_limit_exceeded" == data["response"]["error"]["code"]


def test_embeddings_come_as_lists_or_as_base64() -> None:
    provider = simulator("10 rpm")
    body = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 3}
    plain = ask(provider, "/v1/embeddings", body).json()
    packed = ask(
        provider, "/v1/embeddings", {**body, "encoding_format": "base64"}
    ).json()
    vector = struct.unpack("<3f", base64.b64decode(packed["data"][0]["embedding"]))

    assert [0, 1] == [one["index"] for one in plain["data"]]
    assert plain["data"][0]["embedding"] == pytest.approx(vector)
    assert {"prompt_tokens": 2, "total_tokens": 2} == plain["usage"]


def test_models_are_listed_and_count_against_no_limit() -> None:
    provider = simulator("1 rpm")
    first = ask(provider, "/v1/models")
    ask(provider, "/v1/models")

    assert "model" == first.json()["data"][0]["object"]
    assert 200 == chat(provider).status_code


@pytest.mark.parametrize(
    ("fields", "charged"),
    [
        ({"max_tokens": 500}, 500),
        ({"max_completion_tokens": 300, "max_tokens": 500}, 300),
        ({"max_tokens": 1}, 3),  # nine characters
        ({}, 3),
        ({"messages": [{"role": "user", "content": "你" * 40}]}, 10),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            85,
        ),
    ],
)
def test_admission_takes_the_greater_of_max_tokens_and_the_characters_guess(
    fields: dict[str, Any], charged: int
) -> None:
    response = chat(simulator("1000 tpm"), **fields)

    assert 1000 - charged == int(response.headers["x-ratelimit-remaining-tokens"])


def test_what_was_not_used_does_not_come_back() -> None:
    provider = simulator("1000 tpm")
    chat(provider, "output=1", max_tokens=600)

    assert 429 == chat(provider, max_tokens=600).status_code


def test_it_can_be_told_to_give_unused_tokens_back() -> None:
    provider = simulator("1000 tpm", refunds=True)
    chat(provider, "output=1", max_tokens=600)

    assert 200 == chat(provider, max_tokens=600).status_code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"nonsense",
        b"\xff\xfe",
        b"[" * 100_000,
        b"{}",
        b'{"model": 5, "messages": []}',
        b'{"model": "m"}',
        b'{"model": "m", "messages": []}',
        b'{"model": "m", "messages": "hello"}',
        b'{"model": "m", "messages": [5]}',
        b'{"model": "m", "messages": [{"content": "x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":-1}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":1.5}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":true}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":1e99}',
        b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":"yes"}',
    ],
)
def test_a_request_that_makes_no_sense_is_a_400_and_costs_nothing(body: bytes) -> None:
    provider = simulator("1 rpm")
    response = ask(provider, "/v1/chat/completions", body)

    assert 400 == response.status_code
    assert "invalid_request_error" == response.json()["error"]["type"]
    assert 200 == chat(provider).status_code


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/nothing"), ("GET", "/v1/chat/completions"), ("PUT", "/v1/models")],
)
def test_what_is_not_there_is_a_404(method: str, path: str) -> None:
    response = ask(simulator("1 rpm"), path, method=method)

    assert 404 == response.status_code


def test_a_content_that_is_null_or_a_list_of_parts_is_counted() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    response = chat(
        simulator("10k tpm"),
        messages=[
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "user", "content": [{"type": "text", "text": "x" * 400}]},
        ],
        tools=tools,
    )

    assert response.json()["usage"]["prompt_tokens"] > 100


def test_a_stray_cue_is_a_400_that_names_the_word() -> None:
    response = chat(simulator("10 rpm"), "hunger=5")

    assert 400 == response.status_code
    assert "'hunger' is not known" in response.json()["error"]["message"]


def test_no_headers_on_cue_leaves_out_all_that_tells_of_limits() -> None:
    provider = simulator("1 rpm")
    answered = chat(provider, "no-headers")
    refused = chat(provider, "no-headers")

    assert not any(name.startswith("x-ratelimit") for name in answered.headers)
    assert 429 == refused.status_code
    assert "retry-after" not in refused.headers


def test_no_usage_on_cue_leaves_the_usage_out() -> None:
    body = chat(simulator("10 rpm"), "no-usage", messages=ROLES).json()

    assert "usage" not in body


def test_several_choices_are_several_answers_that_all_count() -> None:
    provider = Simulator("openai", ["60 rpm", "1000 tpm"], clock=ManualClock())
    response = chat(provider, "output=4", n=3, max_tokens=100)
    body = response.json()
    words = [one["message"]["content"].split() for one in body["choices"]]

    assert [0, 1, 2] == [one["index"] for one in body["choices"]]
    assert [4, 4, 4] == list(map(len, words))
    assert 12 == body["usage"]["completion_tokens"]
    assert "700" == response.headers["x-ratelimit-remaining-tokens"]


def test_several_choices_of_a_stream_come_in_turn_and_each_ends() -> None:
    response = chat(
        Simulator("openai"),
        "output=2",
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, (_, last), (_, done) = events(response)
    choices = [one["choices"][0] for _, one in chunks]

    assert [0, 1, 0, 1, 0, 1, 0, 1] == [one["index"] for one in choices]
    assert ["stop", "stop"] == [one["finish_reason"] for one in choices[-2:]]
    assert (4, "[DONE]") == (last["usage"]["completion_tokens"], done)


def test_more_choices_than_openai_gives_are_a_bad_request() -> None:
    response = chat(Simulator("openai"), n=129)

    assert (400, "n") == (response.status_code, response.json()["error"]["param"])
