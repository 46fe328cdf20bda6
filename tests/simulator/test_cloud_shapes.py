"""Bedrock, Vertex and Cohere: the shapes that are theirs alone."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import anthropic
import httpx2
import pytest

import ratekeeper
from ratekeeper.simulator import eventstream
from ratekeeper.simulator.server import Simulator, serving
from ratekeeper.testing import ManualClock
from tests.simulator.asking import ROLES, ask, events

NOVA = {"messages": [{"role": "user", "content": [{"text": "Say hello"}]}]}
CLAUDE = {"messages": ROLES, "max_tokens": 40}
ON_BEDROCK = {**CLAUDE, "anthropic_version": "bedrock-2023-05-31"}
ON_VERTEX = {**CLAUDE, "anthropic_version": "vertex-2023-10-16"}
GOOGLE = {"contents": [{"role": "user", "parts": [{"text": "Say hello"}]}]}
COHERE = {"model": "command-a", "messages": ROLES}
PLACE = "/v1/projects/p/locations/l"
GEMINI = f"{PLACE}/publishers/google/models/gemini-x"
OPUS = f"{PLACE}/publishers/anthropic/models/claude-opus-5@20260929"
MESSAGE: Any = {"role": "user", "content": "Say hello"}


def frames(data: bytes) -> list[tuple[dict[str, str], Any]]:
    """Read frames as AWS's documents describe them, checking every sum."""
    found = []
    while data:
        total, length, checksum = struct.unpack_from(">III", data)
        assert zlib.crc32(data[:8]) == checksum
        assert zlib.crc32(data[: total - 4]) == int.from_bytes(data[total - 4 : total])
        fields, at = {}, 12
        while at < 12 + length:
            name = data[at + 1 : at + 1 + data[at]].decode()
            at += 1 + data[at]
            size = int.from_bytes(data[at + 1 : at + 3])
            assert data[at] == 7
            fields[name] = data[at + 3 : at + 3 + size].decode()
            at += 3 + size
        found.append((fields, json.loads(data[12 + length : total - 4])))
        data = data[total:]
    return found


def converse(
    simulator: Simulator, what: str = "converse", cue: str = "", **body: Any
) -> httpx2.Response:
    path = f"/model/us.amazon.nova-pro-v1%3A0/{what}"
    return ask(simulator, path, {**NOVA, **body}, cue=cue)


def test_bedrock_answers_a_conversation_with_its_usage() -> None:
    response = converse(Simulator("bedrock"), cue="output=4, cached=2")
    body = response.json()

    assert "end_turn" == body["stopReason"]
    assert 4 == len(body["output"]["message"]["content"][0]["text"].split())
    assert {
        "inputTokens": 7,
        "outputTokens": 4,
        "totalTokens": 13,
        "cacheReadInputTokens": 2,
        "cacheWriteInputTokens": 0,
    } == body["usage"]


def test_bedrock_streams_frames_whose_sums_are_right() -> None:
    response = converse(Simulator("bedrock"), "converse-stream", "output=2")
    kinds = [fields[":event-type"] for fields, _ in frames(response.content)]
    last = frames(response.content)[-1]

    assert "application/vnd.amazon.eventstream" == response.headers["content-type"]
    assert [
        "messageStart",
        "contentBlockDelta",
        "contentBlockDelta",
        "contentBlockStop",
        "messageStop",
        "metadata",
    ] == kinds
    assert "event" == last[0][":message-type"]
    assert 2 == last[1]["usage"]["outputTokens"]


def test_bedrock_ends_a_stream_that_fails_with_an_exception() -> None:
    cue = "error=1, reason=throttled, output=4"
    response = converse(Simulator("bedrock"), "converse-stream", cue)
    fields, said = frames(response.content)[-1]

    assert ("exception", "throttlingException") == (
        fields[":message-type"],
        fields[":exception-type"],
    )
    assert said["message"].startswith("Too many requests")


def test_bedrock_wraps_claudes_events_and_bounds_no_stream_by_keep_alives() -> None:
    path = "/model/anthropic.claude-opus-5/invoke-with-response-stream"
    cue = "output=2, keep-alive=3"
    response = ask(Simulator("bedrock"), path, ON_BEDROCK, cue=cue)
    inner = [
        json.loads(base64.b64decode(said["bytes"]))
        for fields, said in frames(response.content)
        if fields[":event-type"] == "chunk"
    ]

    assert "message_start" == inner[0]["type"]
    assert "anthropic.claude-opus-5" == inner[0]["message"]["model"]
    assert {"output_tokens": 2} == inner[-2]["usage"]


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("1 rpm", "Too many requests, please wait before trying again."),
        ("100 tpm", "Too many tokens, please wait before trying again."),
        ("100 tpd", "Too many tokens per day, please wait before trying again."),
    ],
)
def test_bedrock_names_an_error_in_a_header_and_tells_of_no_limit(
    limit: str, text: str
) -> None:
    simulator = Simulator("bedrock", [limit], clock=ManualClock())
    bound: Any = {"inferenceConfig": {"maxTokens": 60}}
    first = converse(simulator, cue="output=60", **bound)
    response = converse(simulator, **bound)

    assert (200, 429) == (first.status_code, response.status_code)
    assert "ThrottlingException" == response.headers["x-amzn-errortype"]
    assert {"message": text} == response.json()
    assert not [
        name
        for name in (*first.headers, *response.headers)
        if "limit" in name or "retry" in name
    ]


@pytest.mark.parametrize(
    ("cue", "status", "kind"),
    [
        ("reason=overloaded", 429, "ModelNotReadyException"),
        ("status=503", 503, "ServiceUnavailableException"),
        ("reason=unauthorized", 403, "UnrecognizedClientException"),
        ("reason=billing", 403, "AccessDeniedException"),
        ("reason=server", 500, "InternalServerException"),
    ],
)
def test_bedrock_has_a_kind_of_its_own_for_every_trouble(
    cue: str, status: int, kind: str
) -> None:
    response = converse(Simulator("bedrock"), cue=cue)

    assert (status, kind) == (
        response.status_code,
        response.headers["x-amzn-errortype"],
    )


@pytest.mark.parametrize(
    ("model", "factor"),
    [
        ("amazon.nova-pro", 1),
        ("us.anthropic.claude-3-7-sonnet", 5),
        ("anthropic.claude-sonnet-4-5", 5),
        ("anthropic.claude-opus-4-8", 15),
        ("global.anthropic.claude-opus-5", 10),
    ],
)
def test_bedrock_reserves_max_tokens_and_settles_by_the_models_factor(
    model: str, factor: int
) -> None:
    simulator = Simulator("bedrock", ["10k tpm"], clock=ManualClock())
    held = {**NOVA, "inferenceConfig": {"maxTokens": 9_000}}
    ask(simulator, f"/model/{model}/converse", held, cue="output=20")
    left = 10_000 - 9 - 20 * factor  # the input is 9, and 3 by its estimate
    more = {**NOVA, "inferenceConfig": {"maxTokens": left - 3 + 1}}
    most = {**NOVA, "inferenceConfig": {"maxTokens": left - 3}}
    statuses = [
        ask(simulator, "/model/m/converse", body).status_code for body in (more, most)
    ]

    assert [429, 200] == statuses


def test_bedrock_reserves_all_a_model_writes_where_no_bound_is_set() -> None:
    simulator = Simulator("bedrock", ["40k tpm"], clock=ManualClock())
    held = simulator.dialect.costs(
        simulator.dialect.read(
            simulator.dialect.route("POST", "/model/m/converse"),  # type: ignore[arg-type]
            json.dumps(NOVA).encode(),
            {},
        )
    )

    assert {"requests": 1, "tokens": 3 + 32_768} == held


def test_bedrock_knows_who_signed_a_request() -> None:
    signed = "AWS4-HMAC-SHA256 Credential=AKIASIMULATED/20270115/us-east-1/bedrock/aws4"
    key = Simulator("bedrock").dialect.key

    assert "AKIASIMULATED" == key({"authorization": f"{signed}_request, Signature=x"})
    assert "ABSK" == key({"authorization": "Bearer ABSK"})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/model/m/converse", {"messages": []}),
        ("/model/m/converse", {**NOVA, "inferenceConfig": 5}),
        ("/model/m/invoke", CLAUDE),
    ],
)
def test_bedrock_refuses_what_makes_no_sense(path: str, body: Any) -> None:
    response = ask(Simulator("bedrock"), path, body)

    assert (400, "ValidationException") == (
        response.status_code,
        response.headers["x-amzn-errortype"],
    )


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("bedrock", "/model/m/apply"),
        ("vertex", f"{GEMINI}:predict"),
        ("cohere", "/v2/rerank"),
    ],
)
def test_what_is_not_served_is_not_found(provider: str, path: str) -> None:
    assert 404 == ask(Simulator(provider), path, {}).status_code


def test_anthropics_sdk_for_bedrock_reads_answers_and_raises_refusals() -> None:
    simulator = Simulator("bedrock", ["1000 rpm", "1M tpm"])
    with serving(simulator) as url:
        host = url.removesuffix("/openai/v1")
        http = ratekeeper.http_client("bedrock", "1000 rpm", "1M tpm")
        with anthropic.AnthropicBedrock(
            base_url=host,
            api_key="ABSK-simulated",
            aws_region="us-east-1",
            http_client=http,
            max_retries=0,
        ) as claude:
            message = claude.messages.create(
                model="anthropic.claude-opus-5",
                max_tokens=40,
                messages=[MESSAGE],
                extra_headers={"x-simulate": "output=5"},
            )
            with pytest.raises(anthropic.RateLimitError):
                claude.messages.create(
                    model="anthropic.claude-opus-5",
                    max_tokens=40,
                    messages=[MESSAGE],
                    extra_headers={"x-simulate": "reason=throttled"},
                )

    assert 5 == message.usage.output_tokens


def test_anthropics_sdk_for_vertex_reads_answers_and_streams() -> None:
    simulator = Simulator("vertex", ["1000 rpm", "1M tpm"])
    with serving(simulator) as url:
        host = url.partition("/v1/")[0]
        http = ratekeeper.http_client("vertex", "1000 rpm", "1M tpm")
        with anthropic.AnthropicVertex(
            base_url=f"{host}/v1",
            access_token="ya29.simulated",
            project_id="p",
            region="global",
            http_client=http,
            max_retries=0,
        ) as claude:
            call: Any = {
                "model": "claude-opus-5@20260929",
                "max_tokens": 40,
                "messages": [MESSAGE],
                "extra_headers": {"x-simulate": "output=5"},
            }
            message = claude.messages.create(**call)
            with claude.messages.stream(**call) as stream:
                streamed = stream.get_final_message()

    assert 5 == message.usage.output_tokens == streamed.usage.output_tokens
    assert "claude-opus-5@20260929" == message.model


def test_vertex_says_of_its_shared_quota_neither_which_nor_how_long() -> None:
    simulator = Simulator("vertex", ["1 rpm"], clock=ManualClock())
    ask(simulator, f"{GEMINI}:generateContent", GOOGLE)
    response = ask(simulator, f"{GEMINI}:generateContent", GOOGLE)
    error = response.json()["error"]

    assert (429, "RESOURCE_EXHAUSTED") == (response.status_code, error["status"])
    assert error["message"].startswith("Resource exhausted. Please try again later.")
    assert "details" not in error
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    ("limit", "quota"),
    [
        ("1 rpm", "online_prediction_requests_per_base_model"),
        ("20 itpm", "online_prediction_input_tokens_per_minute_per_base_model"),
    ],
)
def test_vertex_names_a_quota_for_claude(limit: str, quota: str) -> None:
    simulator = Simulator(
        "vertex", [limit], enforce="fixed-window", clock=ManualClock()
    )
    responses = [ask(simulator, f"{OPUS}:rawPredict", ON_VERTEX) for _ in range(9)]
    message = responses[-1].json()["error"]["message"]

    assert 200 == responses[0].status_code
    assert f"{quota} with base model: anthropic-claude-opus-5. Please" in message


def test_vertex_serves_gemini_and_openais_chat_too() -> None:
    simulator = Simulator("vertex")
    own = ask(simulator, f"{GEMINI}:generateContent", GOOGLE, cue="output=4").json()
    path = f"{PLACE}/endpoints/openapi/chat/completions"
    other = ask(simulator, path, {"model": "m", "messages": ROLES}).json()

    assert ("gemini-x", 4) == (
        own["modelVersion"],
        own["usageMetadata"]["candidatesTokenCount"],
    )
    assert "chat.completion" == other["object"]


def test_vertex_wants_a_token_and_a_version() -> None:
    nobody = ask(Simulator("vertex"), f"{OPUS}:rawPredict", ON_VERTEX, key="")
    bare = ask(Simulator("vertex"), f"{OPUS}:rawPredict", CLAUDE)

    assert (401, "UNAUTHENTICATED") == (
        nobody.status_code,
        nobody.json()["error"]["status"],
    )
    assert 400 == bare.status_code


def test_cohere_answers_in_parts_with_two_counts() -> None:
    body = ask(Simulator("cohere"), "/v2/chat", COHERE, cue="output=4").json()

    assert "COMPLETE" == body["finish_reason"]
    assert 4 == len(body["message"]["content"][0]["text"].split())
    assert {"input_tokens": 9, "output_tokens": 4} == body["usage"]["tokens"]
    assert body["usage"]["billed_units"] == body["usage"]["tokens"]


def test_cohere_streams_named_events_the_last_with_its_usage() -> None:
    said = {**COHERE, "stream": True, "max_tokens": 2}
    response = ask(Simulator("cohere"), "/v2/chat", said, cue="output=9")
    found = events(response)
    last = found[-1][1]["delta"]

    assert [
        "message-start",
        "content-start",
        "content-delta",
        "content-delta",
        "content-end",
        "message-end",
    ] == [name for name, _ in found]
    assert all(name == value["type"] for name, value in found)
    assert ("MAX_TOKENS", 2) == (
        last["finish_reason"],
        last["usage"]["tokens"]["output_tokens"],
    )


def test_cohere_ends_a_stream_that_fails_with_an_error() -> None:
    cue = "error=1, reason=throttled, output=4"
    response = ask(Simulator("cohere"), "/v2/chat", {**COHERE, "stream": True}, cue=cue)
    name, value = events(response)[-1]

    assert ("message-end", "ERROR") == (name, value["delta"]["finish_reason"])
    assert value["delta"]["error"].startswith("You are past the per minute")


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("1 rpm", "You are past the per minute request limit, please wait and try"),
        ("15 tpm", "trial token rate limit exceeded, limit is 15 tokens per minute"),
        ("1 requests/month", "limited to 1 API calls / month"),
    ],
)
def test_cohere_refuses_in_one_sentence_and_no_header(limit: str, text: str) -> None:
    simulator = Simulator(
        "cohere", [limit], enforce="fixed-window", clock=ManualClock()
    )
    responses = [ask(simulator, "/v2/chat", COHERE) for _ in range(6)]
    response = responses[-1]

    assert 429 == response.status_code
    assert ["message"] == list(response.json())
    assert text in response.json()["message"]
    assert not [n for n in response.headers if "limit" in n or "retry" in n]


def test_cohere_tells_a_trial_how_many_calls_are_left() -> None:
    response = ask(Simulator("cohere", clock=ManualClock()), "/v2/chat", COHERE)

    assert ("1000", "20", "19") == tuple(
        response.headers[name]
        for name in (
            "x-endpoint-monthly-call-limit",
            "x-trial-endpoint-call-limit",
            "x-trial-endpoint-call-remaining",
        )
    )


@pytest.mark.parametrize("body", [{"messages": ROLES}, {"model": "m", "messages": []}])
def test_cohere_refuses_what_makes_no_sense(body: Any) -> None:
    response = ask(Simulator("cohere"), "/v2/chat", body)

    assert 400 == response.status_code
    assert response.json()["message"].startswith("invalid request: ")


def test_a_frame_holds_its_headers_and_its_payload() -> None:
    ((fields, payload),) = frames(eventstream.event("ping", {"a": 1}))

    assert {
        ":event-type": "ping",
        ":content-type": "application/json",
        ":message-type": "event",
    } == fields
    assert {"a": 1} == payload
