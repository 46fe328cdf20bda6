"""The official SDKs, unchanged: they parse what is said and raise their own errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import openai
import pytest
from anthropic.types.shared import (
    EnforcedSpendLimitReachedError,
    RampLimitExceededError,
)

from ratekeeper.simulator.server import Simulator, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-test"
MESSAGE: Any = {"role": "user", "content": "Say hello"}


@pytest.fixture(scope="module")
def openai_url() -> Iterator[str]:
    with serving(Simulator("openai", ["1M rpm", "1B tpm"])) as url:
        yield url


@pytest.fixture(scope="module")
def anthropic_url() -> Iterator[str]:
    simulator = Simulator("anthropic", ["1M rpm", "1B itpm", "1B otpm"])
    with serving(simulator) as url:
        yield url


@pytest.fixture
def ai(openai_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=openai_url, api_key=KEY, max_retries=0) as one:
        yield one


@pytest.fixture
def claude(anthropic_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=anthropic_url, api_key=KEY, max_retries=0) as one:
        yield one


def test_openai_parses_a_completion_and_its_limits(ai: openai.OpenAI) -> None:
    raw = ai.chat.completions.with_raw_response.create(
        model="m", messages=[MESSAGE], extra_headers={"x-simulate": "output=3"}
    )
    usage = raw.parse().usage

    assert "1000000" == raw.headers["x-ratelimit-limit-requests"]
    assert usage is not None
    assert (9, 3, 12) == (
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
    )


def test_openai_parses_a_chat_stream_to_its_end(ai: openai.OpenAI) -> None:
    stream = ai.chat.completions.create(
        model="m",
        messages=[MESSAGE],
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-simulate": "output=4, keep-alive=2"},
    )
    chunks = list(stream)
    words = [c.choices[0].delta.content for c in chunks if c.choices]

    assert 4 == len("".join(filter(None, words)).split())
    assert chunks[-1].usage is not None
    assert 4 == chunks[-1].usage.completion_tokens


def test_openai_parses_responses_plain_and_streamed(ai: openai.OpenAI) -> None:
    headers = {"x-simulate": "output=4"}
    plain = ai.responses.create(model="m", input="x", extra_headers=headers)
    with ai.responses.stream(model="m", input="x", extra_headers=headers) as stream:
        stream.until_done()
        streamed = stream.get_final_response()

    assert len(plain.output_text.split()) == len(streamed.output_text.split()) == 4
    assert streamed.usage is not None
    assert 4 == streamed.usage.output_tokens


def test_openai_parses_embeddings_and_models(ai: openai.OpenAI) -> None:
    embedded = ai.embeddings.create(model="m", input=["a", "b"], dimensions=8)

    assert [8, 8] == [len(one.embedding) for one in embedded.data]
    assert "simulated-large" in [one.id for one in ai.models.list()]


@pytest.mark.parametrize(
    ("cue", "error"),
    [
        ("reason=throttled", openai.RateLimitError),
        ("reason=too_large", openai.RateLimitError),
        ("reason=banned", openai.RateLimitError),
        ("reason=unauthorized", openai.AuthenticationError),
        ("reason=forbidden", openai.PermissionDeniedError),
        ("reason=not_found", openai.NotFoundError),
        ("reason=bad_request", openai.BadRequestError),
        ("reason=body_too_large", openai.APIStatusError),
        ("reason=overloaded", openai.InternalServerError),
        ("reason=slow_down", openai.RateLimitError),
        ("reason=billing", openai.RateLimitError),
        ("reason=spend_limit", openai.RateLimitError),
        ("reason=server", openai.InternalServerError),
        ("reason=timeout", openai.InternalServerError),
        ("status=529", openai.InternalServerError),
        ("status=418", openai.APIStatusError),
        ("drop", openai.APIConnectionError),
        ("cut=1", openai.APIConnectionError),
    ],
)
def test_openai_raises_its_own_error_for_every_trouble(
    ai: openai.OpenAI, cue: str, error: type[openai.OpenAIError]
) -> None:
    with pytest.raises(openai.OpenAIError) as raised:
        ai.chat.completions.create(
            model="m", messages=[MESSAGE], extra_headers={"x-simulate": cue}
        )

    assert type(raised.value) is error


@pytest.mark.parametrize("cue", ["cut=2, output=9", "error=2, output=9"])
def test_openai_raises_from_a_chat_stream_that_breaks(
    ai: openai.OpenAI, cue: str
) -> None:
    stream = ai.chat.completions.create(
        model="m", messages=[MESSAGE], stream=True, extra_headers={"x-simulate": cue}
    )

    with pytest.raises(openai.APIError):
        list(stream)


@pytest.mark.parametrize(
    ("cue", "error"),
    [
        ("reason=throttled", anthropic.RateLimitError),
        ("reason=too_large", anthropic.RateLimitError),
        ("reason=banned", anthropic.RateLimitError),
        ("reason=unauthorized", anthropic.AuthenticationError),
        ("reason=forbidden", anthropic.PermissionDeniedError),
        ("reason=not_found", anthropic.NotFoundError),
        ("reason=bad_request", anthropic.BadRequestError),
        ("reason=overloaded", anthropic.APIStatusError),
        ("reason=slow_down", RampLimitExceededError),
        ("reason=billing", anthropic.BadRequestError),
        ("reason=spend_limit", EnforcedSpendLimitReachedError),
        ("reason=server", anthropic.InternalServerError),
        ("status=418", anthropic.APIStatusError),
        ("drop", anthropic.APIConnectionError),
        ("cut=1", anthropic.APIConnectionError),
    ],
)
def test_anthropic_raises_its_own_error_for_every_trouble(
    claude: anthropic.Anthropic, cue: str, error: type[anthropic.AnthropicError]
) -> None:
    with pytest.raises(error):
        claude.messages.create(
            model="m",
            max_tokens=20,
            messages=[MESSAGE],
            extra_headers={"x-simulate": cue},
        )


def test_anthropic_knows_what_kind_of_error_it_was(
    claude: anthropic.Anthropic,
) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        claude.messages.create(
            model="m",
            max_tokens=20,
            messages=[MESSAGE],
            extra_headers={"x-simulate": "status=529"},
        )

    assert (529, "overloaded_error") == (raised.value.status_code, raised.value.type)
    assert (raised.value.request_id or "").startswith("req_")


def test_anthropic_parses_a_message_and_counts_tokens(
    claude: anthropic.Anthropic,
) -> None:
    message = claude.messages.create(
        model="m",
        max_tokens=20,
        messages=[MESSAGE],
        extra_headers={"x-simulate": "output=3"},
    )
    counted = claude.messages.count_tokens(model="m", messages=[MESSAGE])

    assert (9, 3) == (message.usage.input_tokens, message.usage.output_tokens)
    assert 9 == counted.input_tokens


def test_anthropic_parses_a_stream_to_its_end(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model="m",
        max_tokens=20,
        messages=[MESSAGE],
        extra_headers={"x-simulate": "output=5"},
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()

    assert 5 == len(text.split())
    assert (9, 5) == (final.usage.input_tokens, final.usage.output_tokens)
    assert "end_turn" == final.stop_reason


@pytest.mark.parametrize(
    ("cue", "error"),
    [
        ("cut=2, output=9", httpx2.RemoteProtocolError),  # it lets that pass as it is
        ("error=2, output=9", anthropic.APIStatusError),
    ],
)
def test_anthropic_raises_from_a_stream_that_breaks(
    claude: anthropic.Anthropic, cue: str, error: type[Exception]
) -> None:
    with (
        claude.messages.stream(
            model="m",
            max_tokens=20,
            messages=[MESSAGE],
            extra_headers={"x-simulate": cue},
        ) as stream,
        pytest.raises(error),
    ):
        stream.get_final_message()


def test_the_async_clients_are_served_alike(
    openai_url: str, anthropic_url: str
) -> None:
    async def both() -> tuple[Any, Any]:
        async with (
            openai.AsyncOpenAI(base_url=openai_url, api_key=KEY) as ai,
            anthropic.AsyncAnthropic(base_url=anthropic_url, api_key=KEY) as claude,
        ):
            completion = await ai.chat.completions.create(model="m", messages=[MESSAGE])
            message = await claude.messages.create(
                model="m", max_tokens=20, messages=[MESSAGE]
            )
        return completion, message

    completion, message = asyncio.run(both())

    assert completion.usage.prompt_tokens == message.usage.input_tokens == 9


def test_an_sdk_that_retries_comes_back_when_it_is_told_to() -> None:
    simulator = Simulator("openai", ["60 rpm burst 1"])
    with (
        serving(simulator) as url,
        openai.OpenAI(base_url=url, api_key=KEY, max_retries=2) as ai,
    ):
        for _ in range(2):
            ai.chat.completions.create(model="m", messages=[MESSAGE])

    assert {"200": 2, "429": 1} == simulator.stats["by_status"]
