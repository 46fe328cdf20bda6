"""What we read is what the simulated provider, written apart from us, counts and says."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.catalog import PROVIDERS, Provider, find_provider
from ratekeeper.providers.eventstream import EventStreamParser
from ratekeeper.providers.facts import Kind, Meter, Usage
from ratekeeper.providers.presets import Preset, presets
from ratekeeper.simulator import eventstream
from ratekeeper.simulator.dialect import Answer, Call, Dialect, Problem, Trouble
from ratekeeper.simulator.dialects import KNOWN, find_dialect
from ratekeeper.simulator.enforcer import Admitted, Enforcer, Refused
from ratekeeper.simulator.server import Simulator
from tests.providers.malformed import NOW_US

HEADERS = {"anthropic-version": "2023-06-01"}
VERTEX = "/v1/projects/p/locations/l"
PLACES = [
    ("openai", "/v1/chat/completions"),
    ("openai", "/v1/responses"),
    ("anthropic", "/v1/messages"),
    ("deepseek", "/chat/completions"),
    ("holysheep", "/v1/chat/completions"),
    ("groq", "/openai/v1/chat/completions"),
    ("mistral", "/v1/chat/completions"),
    ("azure", "/openai/deployments/d/chat/completions"),
    ("xai", "/v1/chat/completions"),
    ("openrouter", "/api/v1/chat/completions"),
    ("moonshot", "/v1/chat/completions"),
    ("zhipu", "/api/paas/v4/chat/completions"),
    ("dashscope", "/compatible-mode/v1/chat/completions"),
    ("together", "/v1/chat/completions"),
    ("fireworks", "/inference/v1/chat/completions"),
    ("gemini", "/v1beta/openai/chat/completions"),
    ("gemini", "/v1beta/models/gemini-x:streamGenerateContent"),
    ("vertex", f"{VERTEX}/endpoints/openapi/chat/completions"),
    ("vertex", f"{VERTEX}/publishers/anthropic/models/claude-x:streamRawPredict"),
    ("vertex", f"{VERTEX}/publishers/google/models/gemini-x:streamGenerateContent"),
    ("cohere", "/compatibility/v1/chat/completions"),
    ("cohere", "/v2/chat"),
    ("bedrock", "/openai/v1/chat/completions"),
    ("bedrock", "/model/anthropic.claude-x/invoke-with-response-stream"),
    ("bedrock", "/model/amazon.nova/converse-stream"),
]
VERSIONS = {"Predict": "vertex-2023-10-16", "invoke": "bedrock-2023-05-31"}
SILENT = {"gemini", "vertex", "deepseek", "bedrock", "zhipu", "dashscope", "xai"}
SILENT |= {"openrouter", "together"}  # until a limit is reached
# These say neither in a header nor in words how long to wait.
HINTLESS = {"zhipu", "dashscope", "fireworks", "cohere", "bedrock", "vertex"}
TEXTS = st.text(max_size=300) | st.sampled_from(
    ["", "x", "今天天气很好" * 30, "word " * 80, "a" * 500, "\n" * 200, "{}" * 100]
)
CONTENTS = TEXTS | st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, TEXTS), max_size=3
)
PROMPTS = st.lists(CONTENTS, min_size=1, max_size=8)


def read(
    name: str, path: str, contents: list[object], **fields: Any
) -> tuple[Provider, Dialect, bytes, Call]:
    dialect = find_dialect(name)
    body = json.dumps(asked(path, contents, **fields)).encode()
    endpoint = dialect.route("POST", path)
    assert endpoint is not None
    call = dialect.read(endpoint, body, {**HEADERS, ":path": path})
    return find_provider(name), dialect, body, call


def asked(
    path: str, contents: list[object], most: int = 40, **fields: Any
) -> dict[str, object]:
    """Write a request as its API wants it."""
    if "/converse" in path:
        said = [{"role": "user", "content": parts(content)} for content in contents]
        return {"messages": said, "inferenceConfig": {"maxTokens": most}}
    if path.endswith("GenerateContent"):
        said = [{"role": "user", "parts": parts(content)} for content in contents]
        return {"contents": said, "generationConfig": {"maxOutputTokens": most}}
    plain = [{"role": "user", "content": content} for content in contents]
    for part, version in VERSIONS.items():
        if part in path:
            fields["anthropic_version"] = version
            return {"messages": plain, "max_tokens": most, **fields}
    field = "input" if path.endswith("/responses") else "messages"
    bound = "max_output_tokens" if field == "input" else "max_tokens"
    return {"model": "gpt-4o", field: plain, bound: most, **fields}


def parts(content: object) -> list[dict[str, str]]:
    texts = [content] if isinstance(content, str) else content
    assert isinstance(texts, list)
    return [{"text": one if isinstance(one, str) else one["text"]} for one in texts]


def told(name: str, trouble: Trouble) -> Problem:
    """Return a problem as a provider tells it; a 429 names its first limit."""
    problem = Problem(trouble=trouble, wait_us=1_500_000, now_us=NOW_US)
    if trouble is not Trouble.THROTTLED:
        return problem
    rule = Enforcer.from_limits(find_dialect(name).usual_limits).rules[0]
    refused = Refused(rule=rule, wait_us=1_500_000, never=False, requested=1, used=1)
    return dataclasses.replace(problem, refused=refused)


def answer(tokens: int, *, with_usage: bool = True) -> Answer:
    return Answer(
        request_id="1",
        created=0,
        words=["one "] * tokens,
        truncated=tokens == 40,
        with_usage=with_usage,
    )


def fed(provider: Provider, path: str, body: bytes, kind: str, data: bytes) -> Meter:
    meter = provider.meter(provider.read_request("POST", path, body), kind)
    for start in range(0, len(data), 7):
        meter.feed(data[start : start + 7])
    return meter


@pytest.mark.parametrize(("name", "path"), PLACES)
@given(PROMPTS, st.integers(1, 500))
def test_we_never_take_less_than_the_provider_does(
    name: str, path: str, contents: list[object], bound: int
) -> None:
    provider, dialect, body, call = read(name, path, contents, most=bound)
    costs = provider.costs(provider.read_request("POST", path, body))
    theirs = dialect.costs(call)

    assert theirs
    assert all(costs.charged[unit] >= theirs[unit] for unit in theirs)


@given(st.lists(TEXTS, min_size=1, max_size=8))
def test_we_never_take_less_than_the_provider_does_for_embeddings(
    texts: list[str],
) -> None:
    body = json.dumps({"model": "text-embedding-3-small", "input": texts}).encode()
    dialect, provider = find_dialect("openai"), find_provider("openai")
    endpoint = dialect.route("POST", "/v1/embeddings")
    assert endpoint is not None
    theirs = dialect.costs(dialect.read(endpoint, body, HEADERS))
    facts = provider.read_request("POST", "/v1/embeddings", body)
    ours = provider.costs(facts).charged

    assert all(ours[unit] >= theirs[unit] for unit in theirs)


@given(
    st.dictionaries(st.text(max_size=10), st.text(max_size=40), max_size=5),
    st.text(max_size=200),
)
def test_tools_and_instructions_are_taken_for_no_less_either(
    properties: dict[str, str], system: str
) -> None:
    function = {"name": "f", "description": system, "parameters": properties}
    tools = [{"type": "function", "function": function}]
    for name, path, field in (
        ("openai", "/v1/chat/completions", "response_format"),
        ("openai", "/v1/responses", "instructions"),
        ("anthropic", "/v1/messages", "system"),
    ):
        value: object = system
        if field == "response_format":
            value = {"type": "json_schema", "json_schema": properties}
        provider, dialect, body, call = read(
            name, path, ["hi"], tools=tools, **{field: value}
        )
        facts = provider.read_request("POST", path, body)

        assert facts.input_tokens >= call.estimate
        assert provider.costs(facts).charged["tokens"] >= dialect.costs(call)["tokens"]


@pytest.mark.parametrize(("name", "path"), PLACES)
@pytest.mark.parametrize("tokens", [0, 1, 17, 40])
def test_usage_is_found_in_streams_and_answers(
    name: str, path: str, tokens: int
) -> None:
    provider, dialect, body, call = read(
        name,
        path,
        ["Hello there"],
        stream=True,
        stream_options={"include_usage": True},
    )
    said = answer(tokens)
    events = b"".join(event.data for event in dialect.stream(call, said))
    whole = dialect.answer(call, said)
    expected = Usage(input_tokens=call.input_tokens, output_tokens=tokens)
    idle = dialect.keep_alive(stream=True) * 3

    stream = fed(provider, path, body, dialect.stream_type(call), idle + events)
    plain = fed(provider, path, body, "application/json", b"\n\n" + whole)
    assert expected == stream.usage() == plain.usage()
    assert tokens == stream.flowed()
    assert stream.failure(NOW_US) is None
    assert plain.failure(NOW_US) is None


@pytest.mark.parametrize(("name", "path"), PLACES)
def test_a_stream_without_usage_is_counted_by_what_flowed(name: str, path: str) -> None:
    provider, dialect, body, call = read(name, path, ["Hello there"], stream=True)
    said = answer(17, with_usage=False)
    events = b"".join(event.data for event in dialect.stream(call, said))
    meter = fed(provider, path, body, dialect.stream_type(call), events)

    assert 17 == meter.flowed()


@pytest.mark.parametrize(("name", "path"), PLACES)
def test_a_stream_cut_anywhere_is_never_free_once_something_flowed(
    name: str, path: str
) -> None:
    provider, dialect, body, call = read(name, path, ["Hello there"], stream=True)
    facts = provider.read_request("POST", path, body)
    meter = provider.meter(facts, dialect.stream_type(call))
    for event in dialect.stream(call, answer(17)):
        meter.feed(event.data)
        usage = meter.usage()
        settled = (
            provider.partial(facts, meter.flowed())
            if usage is None
            else provider.charged(facts, usage)
        )

        assert event.tokens <= meter.flowed() <= 17
        if event.tokens:
            assert settled["output_tokens"] >= event.tokens


def test_anthropics_settled_units_are_those_the_provider_settles() -> None:
    provider, dialect, body, call = read("anthropic", "/v1/messages", ["Hello there"])
    facts = provider.read_request("POST", "/v1/messages", body)
    used = dialect.used(call, 17)
    usage = Usage(input_tokens=call.input_tokens, output_tokens=17)

    assert {"requests": 1, **used} == provider.charged(facts, usage)


@given(st.integers(1, 400), st.integers(0, 400))
def test_holysheeps_overrun_is_what_the_relay_charges(bound: int, out: int) -> None:
    path = "/v1/chat/completions"
    provider, dialect, body, call = read(
        "holysheep", path, ["Hello there"], max_tokens=bound
    )
    facts = provider.read_request("POST", path, body)
    usage = Usage(input_tokens=call.input_tokens, output_tokens=min(out, bound))
    theirs = max(
        dialect.costs(call)["tokens"], dialect.used(call, min(out, bound))["tokens"]
    )

    assert provider.charged(facts, usage)["tokens"] >= theirs


# What a provider's own words say less of than the trouble behind them.
BLURRED = {
    ("bedrock", Trouble.BANNED): Kind.FORBIDDEN,
    ("bedrock", Trouble.BILLING): Kind.FORBIDDEN,
    ("bedrock", Trouble.SLOW_DOWN): Kind.THROTTLED,
    ("bedrock", Trouble.SPEND_LIMIT): Kind.FORBIDDEN,
    ("cohere", Trouble.SLOW_DOWN): Kind.THROTTLED,
    ("gemini", Trouble.BANNED): Kind.FORBIDDEN,
    ("gemini", Trouble.SLOW_DOWN): Kind.THROTTLED,
    ("moonshot", Trouble.SLOW_DOWN): Kind.THROTTLED,
    ("together", Trouble.BODY_TOO_LARGE): Kind.REJECTED,
    ("vertex", Trouble.BANNED): Kind.FORBIDDEN,
    ("vertex", Trouble.SLOW_DOWN): Kind.OVERLOADED,
    ("vertex", Trouble.THROTTLED): Kind.OVERLOADED,
    ("zhipu", Trouble.BANNED): Kind.FORBIDDEN,
    ("zhipu", Trouble.SLOW_DOWN): Kind.THROTTLED,
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (Trouble.THROTTLED, Kind.THROTTLED),
        (Trouble.BANNED, Kind.STOPPED),
        (Trouble.UNAUTHORIZED, Kind.UNAUTHORIZED),
        (Trouble.FORBIDDEN, Kind.FORBIDDEN),
        (Trouble.NOT_FOUND, Kind.REJECTED),
        (Trouble.BAD_REQUEST, Kind.REJECTED),
        (Trouble.BODY_TOO_LARGE, Kind.IMPOSSIBLE),
        (Trouble.OVERLOADED, Kind.OVERLOADED),
        (Trouble.SLOW_DOWN, Kind.RAMP),
        (Trouble.BILLING, Kind.BILLING),
        (Trouble.SPEND_LIMIT, Kind.BILLING),
        (Trouble.SERVER, Kind.TRANSIENT),
        (Trouble.TIMEOUT, Kind.TRANSIENT),
        (Trouble.OTHER, Kind.REJECTED),
    ],
)
def test_every_trouble_is_understood_however_the_provider_words_it(
    name: str, trouble: Trouble, kind: Kind
) -> None:
    reply = find_dialect(name).failure(told(name, trouble), [], NOW_US)
    verdict = find_provider(name).judge(reply.status, reply.headers, reply.body, NOW_US)

    assert BLURRED.get((name, trouble), kind) is verdict.kind


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_every_trouble_inside_a_stream_is_understood(name: str, place: str) -> None:
    provider, dialect, body, call = read(name, place, ["Hello"], stream=True)
    blurred = {("cohere", Trouble.OVERLOADED): Kind.TRANSIENT, **BLURRED}
    for trouble, kind in (
        (Trouble.THROTTLED, Kind.THROTTLED),
        (Trouble.OVERLOADED, Kind.OVERLOADED),
        (Trouble.SERVER, Kind.TRANSIENT),
    ):
        data = dialect.stream_error(call, told(name, trouble))
        meter = fed(provider, place, body, dialect.stream_type(call), data)
        failure = meter.failure(NOW_US)
        expected = kind
        if place.endswith(("/v2/chat", "GenerateContent", "openapi/chat/completions")):
            expected = blurred.get((name, trouble), kind)

        assert failure is not None
        assert expected is failure.kind


@pytest.mark.parametrize(
    ("name", "limit", "unit", "window_us"),
    [
        ("openai", "3 rpm", "requests", 60_000_000),
        ("openai", "300 requests/day", "requests", 86_400_000_000),
        ("openai", "300 tpm", "tokens", 60_000_000),
        ("openai", "300 tokens/10s", "tokens", 10_000_000),
        ("openai", "1 concurrent", "concurrent", None),
        ("anthropic", "3 rpm", "requests", 60_000_000),
        ("anthropic", "300 itpm", "input_tokens", 60_000_000),
        ("anthropic", "300 tpm", "tokens", 60_000_000),
        ("anthropic", "300 input_tokens/10s", "input_tokens", 10_000_000),
        ("anthropic", "1 concurrent", "concurrent", None),
        ("deepseek", "1 concurrent", "concurrent", None),
        ("holysheep", "3 rpm", "requests", 60_000_000),
        ("holysheep", "300 tokens/day", "tokens", 86_400_000_000),
        ("groq", "3 rpm", "requests", 60_000_000),
        ("groq", "300 tpm", "tokens", 60_000_000),
        ("groq", "300 tokens/day", "tokens", 86_400_000_000),
        ("azure", "3 rpm", "requests", None),
        ("azure", "300 tpm", "tokens", None),
        ("mistral", "300 tpm", None, None),
        ("gemini", "3 rpm", "requests", 60_000_000),
        ("gemini", "300 tpm", "tokens", 60_000_000),
        ("vertex", "3 rpm", "requests", 60_000_000),
        ("vertex", "300 itpm", "input_tokens", 60_000_000),
        ("xai", "3 rps", "requests", 1_000_000),
        ("xai", "300 tpm", "tokens", 60_000_000),
        ("openrouter", "3 rpm", "requests", 60_000_000),
        ("openrouter", "1 concurrent", None, None),
        ("moonshot", "3 rpm", "requests", 60_000_000),
        ("moonshot", "300 tpm", "tokens", 60_000_000),
        ("moonshot", "1 concurrent", "concurrent", None),
        ("zhipu", "3 rpm", "requests", None),
        ("zhipu", "1 concurrent", None, None),
        ("dashscope", "3 rps", "requests", None),
        ("dashscope", "300 tpm", "tokens", None),
        ("together", "3 rpm", "requests", None),
        ("together", "300 tpm", "tokens", None),
        ("fireworks", "3 rpm", None, None),
        ("cohere", "3 rpm", "requests", 60_000_000),
        ("cohere", "300 tpm", "tokens", 60_000_000),
        ("bedrock", "3 rpm", "requests", None),
        ("bedrock", "300 tpm", "tokens", None),
    ],
)
def test_the_limit_and_the_wait_of_a_refusal_are_the_providers(
    name: str, limit: str, unit: str | None, window_us: int | None
) -> None:
    dialect, provider = find_dialect(name), find_provider(name)
    enforcer = Enforcer.from_limits([limit], enforce="sliding-log")
    costs = {"requests": 1, "tokens": 90, "input_tokens": 90, "output_tokens": 0}
    verdict: Admitted | Refused = enforcer.admit(costs, NOW_US)
    while isinstance(verdict, Admitted):
        verdict = enforcer.admit(costs, NOW_US)
    problem = Problem(
        trouble=Trouble.THROTTLED,
        model="claude-opus-5",
        refused=verdict,
        wait_us=verdict.wait_us,
        now_us=NOW_US,
    )
    reply = dialect.failure(problem, enforcer.standing(NOW_US), NOW_US)
    read_back = provider.judge(reply.status, reply.headers, reply.body, NOW_US)

    assert (Kind.THROTTLED, unit, window_us) == (
        read_back.kind,
        read_back.unit,
        read_back.window_us,
    )
    if name in HINTLESS:
        assert read_back.retry_after_us is None
    elif verdict.wait_us is not None:
        assert read_back.retry_after_us is not None
        assert verdict.wait_us <= read_back.retry_after_us < verdict.wait_us + 1_000_000


@pytest.mark.parametrize(
    ("name", "limit", "unit", "window_us"),
    [
        ("openrouter", "3 requests/day", "requests", 86_400_000_000),
        ("gemini", "3 requests/day", "requests", 86_400_000_000),
        ("bedrock", "300 tokens/day", "tokens", 86_400_000_000),
        ("cohere", "3 requests/month", "requests", 30 * 86_400_000_000),
        ("zhipu", "3 requests/day", "requests", 86_400_000_000),
        ("zhipu", "3 requests/5 hours", None, None),
        ("zhipu", "3 requests/week", None, None),
    ],
)
def test_an_allowance_that_is_gone_for_long_is_no_mere_throttle(
    name: str, limit: str, unit: str | None, window_us: int | None
) -> None:
    dialect, provider = find_dialect(name), find_provider(name)
    rule = Enforcer.from_limits([limit]).rules[0]
    refused = Refused(
        rule=rule, wait_us=7_200_000_000, never=False, requested=1, used=3
    )
    problem = Problem(
        trouble=Trouble.THROTTLED,
        refused=refused,
        wait_us=refused.wait_us,
        now_us=NOW_US,
    )
    reply = dialect.failure(problem, [], NOW_US)
    read_back = provider.judge(reply.status, reply.headers, reply.body, NOW_US)

    assert (Kind.STOPPED, unit) == (read_back.kind, read_back.unit)
    assert window_us is None or window_us == read_back.window_us
    if name in {"openrouter", "zhipu"} and unit != "requests":
        assert refused.wait_us == read_back.retry_after_us


@pytest.mark.parametrize("name", ["openai", "holysheep", "groq", "mistral", "azure"])
def test_a_request_larger_than_a_limit_is_impossible(name: str) -> None:
    enforcer = Enforcer.from_limits(["300 tpm"])
    refused = enforcer.admit({"requests": 1, "tokens": 301}, NOW_US)
    assert isinstance(refused, Refused)
    problem = Problem(trouble=Trouble.TOO_LARGE, refused=refused)
    reply = find_dialect(name).failure(problem, [], NOW_US)
    verdict = find_provider(name).judge(reply.status, reply.headers, reply.body, NOW_US)

    assert (Kind.IMPOSSIBLE, "tokens", False) == (
        verdict.kind,
        verdict.unit,
        verdict.retry,
    )


@pytest.mark.parametrize("name", [n for n in KNOWN if n not in {"cohere", "fireworks"}])
@given(st.integers(0, 60), st.integers(0, 60_000_000))
def test_the_limits_shown_are_read_never_above_what_is_left(
    name: str, taken: int, elapsed_us: int
) -> None:
    limits = {
        "anthropic": ["60 rpm", "90k itpm", "20k otpm"],
        "groq": ["60 rpd", "90k tpm"],
    }.get(name, ["60 rpm", "90k tpm"])
    enforcer = Enforcer.from_limits(limits)
    for _ in range(taken):
        enforcer.admit(
            {"requests": 1, "tokens": 777, "input_tokens": 777, "output_tokens": 99},
            NOW_US,
        )
    now_us = NOW_US + elapsed_us
    standing = enforcer.standing(now_us)
    shown = find_dialect(name).limit_headers(standing, now_us)
    readings = find_provider(name).readings(shown, now_us)
    true = {one.rule.unit: one for one in standing}

    assert {reading.unit for reading in readings} == (
        set()
        if name in SILENT
        else {"requests"}
        if name in {"holysheep", "moonshot"}
        else set(true)
    )
    for reading in readings:
        one = true[reading.unit]
        assert reading.limit == one.limit
        assert reading.window_us in {None, one.rule.window_us}
        assert reading.remaining is not None
        assert (
            one.remaining - 1000
            <= reading.remaining
            <= one.remaining + (500 if one.remaining > one.limit - 500 else 0)
        )
        if name != "mistral":  # it tells of no reset
            assert reading.full_after_us is not None
            assert one.full_at - now_us <= reading.full_after_us
            assert reading.full_after_us <= one.full_at - now_us + 1_000_000


def test_a_trial_of_coheres_tells_its_calls_and_a_production_key_nothing() -> None:
    dialect, provider = find_dialect("cohere"), find_provider("cohere")
    for limits, shown in (
        (["20 rpm", "1000 requests/month"], [(1000, None), (20, 19)]),
        (["500 rpm"], []),
    ):
        enforcer = Enforcer.from_limits(limits)
        enforcer.admit({"requests": 1}, NOW_US)
        headers = dialect.limit_headers(enforcer.standing(NOW_US), NOW_US)
        readings = provider.readings(headers, NOW_US)

        assert shown == [(one.limit, one.remaining) for one in readings]


def test_fireworks_tells_its_tokens_by_the_second() -> None:
    dialect, provider = find_dialect("fireworks"), find_provider("fireworks")
    enforcer = Enforcer.from_limits(["900k itpm", "36k otpm"])
    costs = {"requests": 1, "input_tokens": 890_000, "output_tokens": 0}
    enforcer.admit(costs, NOW_US)
    headers = dialect.limit_headers(enforcer.standing(NOW_US), NOW_US)
    readings = provider.readings(headers, NOW_US)

    assert [("input_tokens", 15_000, 10_000), ("output_tokens", 600, 600)] == [
        (one.unit, one.limit, one.remaining) for one in readings
    ]
    assert {1_000_000} == {one.window_us for one in readings}


def test_every_provider_by_name_can_be_simulated() -> None:
    assert sorted(PROVIDERS) == list(KNOWN)


@pytest.mark.parametrize(
    "one", presets(), ids=lambda p: f"{p.provider}-{p.tier}-{p.models[0]}"
)
def test_the_limits_of_every_preset_can_be_simulated(one: Preset) -> None:
    assert len(one.limits) == len(Simulator(one.provider, one.limits).limits)


@given(
    st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=200)), max_size=6),
    st.integers(1, 50),
)
def test_the_frames_that_are_written_are_those_that_are_read(
    said: list[tuple[str, bytes]], step: int
) -> None:
    data = b"".join(
        eventstream.frame([(":event-type", f"x{kind}"), (":n", "1")], payload)
        for kind, payload in said
    )
    parser = EventStreamParser()
    read_back = [
        (event.type, event.data)
        for start in range(0, len(data), step)
        for event in parser.feed(data[start : start + step])
    ]

    assert [(f"x{kind}", payload) for kind, payload in said] == read_back


@pytest.mark.parametrize("name", KNOWN)
def test_a_simulated_provider_takes_its_key_from_the_same_variable(name: str) -> None:
    assert find_provider(name).key_variable == find_dialect(name).key_variable
