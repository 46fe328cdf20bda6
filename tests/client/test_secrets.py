"""A key, a prompt or an answer never reaches a log, an error text or a repr of ours."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import traceback
from typing import Any

import pytest

from ratekeeper import Limiter
from ratekeeper.client.attempt import Counter
from ratekeeper.errors import ConfigError, LimitExceeded, NeverPossible
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.estimate import Prompt
from tests.client.kits import KITS
from tests.client.wire import (
    STREAM_HEAD,
    Script,
    Wire,
    chunked,
    delta,
    events,
    http,
)

CANARY = "canary-7d1f0b52c4"
SECRET: dict[str, Any] = {
    "json": {
        "model": "m",
        "max_tokens": 90,
        "messages": [{"role": "user", "content": f"prompt {CANARY}"}],
    },
    "headers": {"authorization": f"Bearer sk-{CANARY}", "x-api-key": CANARY},
}
ERROR = f'{{"error": {{"message": "key sk-{CANARY} and prompt {CANARY}"}}}}'.encode()
STREAM = chunked(*events(delta(CANARY), {"error": {"message": CANARY}}))
ANSWERS = {
    "401": Script(http(401, ERROR)),
    "429": Script(http(429, ERROR, "retry-after: 1")),
    "500": Script(http(500, ERROR)),
    "stream": Script(STREAM_HEAD, *STREAM),
    "cut": Script(STREAM_HEAD, *STREAM[:1], end="close"),
    "lost": Script(end="close"),
    "garbage": Script(f"{CANARY}\r\n\r\n".encode(), end="close"),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("kind", KITS)
def test_no_log_of_ours_tells_a_secret(
    kind: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ratekeeper")
    with Wire(ANSWERS[name]) as wire, KITS[kind]("2 requests/day", "1k tpm") as c:
        for _ in range(3):
            try:
                c.post(f"{wire.url}/chat/completions", timeout=0.5, **SECRET)
            except (c.lib.TransportError, LimitExceeded) as error:
                ours = [
                    line
                    for line in traceback.format_exception(error)
                    if "ratekeeper" in line
                ]
                assert CANARY not in "".join(ours)
        shown = [repr(c.limiter), repr(c.transport), repr(vars(c.transport))]

    ours = [r.getMessage() for r in caplog.records if r.name.startswith("ratekeeper")]
    assert CANARY not in "\n".join([*ours, *shown])


@pytest.mark.parametrize("kind", KITS)
@pytest.mark.parametrize("limits", [("1 requests/day",), ("50 tpm",)])
def test_no_refusal_tells_a_secret(kind: str, limits: tuple[str, ...]) -> None:
    with Wire(http(200, b"{}")) as wire:
        url = f"{wire.url}/chat/completions"
        with KITS[kind](*limits) as c:
            c.post(url, **SECRET)
            refused = c.post(url, **SECRET)

            assert 429 == refused.status_code
            assert CANARY not in refused.text + str(refused.headers)
        with KITS[kind](*limits, raise_refusals=True) as c:
            if limits == ("1 requests/day",):
                c.post(url, **SECRET)
            with pytest.raises((LimitExceeded, NeverPossible)) as caught:
                c.post(url, **SECRET)

            error = caught.value
            assert CANARY not in f"{error!r} {error} {vars(error)}"
            assert str(error) == str(pickle.loads(pickle.dumps(error)))


PRICES: dict[str, Any] = {"m": {"input": "1", "output": "1000"}}
UNBOUND: dict[str, Any] = {
    **SECRET,
    "json": {k: v for k, v in SECRET["json"].items() if k != "max_tokens"},
}


@pytest.mark.parametrize("kind", KITS)
@pytest.mark.parametrize(
    ("budget", "prices", "path", "request_"),
    [
        ("$0.01/day", PRICES, "/chat/completions", SECRET),
        ("$1/day", {}, "/chat/completions", SECRET),
        ("$1/day", PRICES, "/chat/completions", UNBOUND),
        ("$1/day", PRICES, f"/images/generations?key={CANARY}", SECRET),
    ],
    ids=["dearer", "unknown", "unbound", "other"],
)
def test_no_refusal_for_money_tells_a_secret(
    kind: str,
    budget: str,
    prices: Any,
    path: str,
    request_: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="ratekeeper")
    with Wire() as wire, KITS[kind](budget, prices=prices, raise_refusals=True) as c:
        with pytest.raises((ConfigError, NeverPossible)) as caught:
            c.post(f"{wire.url}{path}", **request_)
        assert not wire.requests

    error, ours = caught.value, [r.getMessage() for r in caplog.records]
    shown = [repr(error), str(error), repr(vars(error)), repr(c.limiter)]
    assert CANARY not in "\n".join([*ours, *shown])


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("kind", KITS)
def test_no_log_of_a_call_that_is_paid_for_tells_a_secret(
    kind: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ratekeeper")
    with Wire(ANSWERS[name]) as wire, KITS[kind]("$1/day", prices=PRICES) as c:
        with contextlib.suppress(c.lib.TransportError):
            c.post(f"{wire.url}/chat/completions", timeout=0.5, **SECRET)
        shown = [repr(c.limiter), repr(c.transport), repr(vars(c.transport))]

    ours = [r.getMessage() for r in caplog.records if r.name.startswith("ratekeeper")]
    assert CANARY not in "\n".join([*ours, *shown])


def test_what_is_known_of_a_request_shows_nothing_of_it() -> None:
    prompt = Prompt(model="m")
    prompt.add(CANARY)
    counter = Counter(Limiter("$1/day", "1M tpm"), find_provider("openai"), PRICES)
    body = json.dumps(SECRET["json"]).encode()
    ask = counter.ask("POST", "/chat/completions", body, timeout=0, again=False)

    assert CANARY not in f"{prompt!r} {ask!r} {counter!r} {counter.lessons!r}"
