"""`ratekeeper check-key`: each finding has its words and its exit code, no key is shown."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from ratekeeper.cli.main import run
from ratekeeper.providers.catalog import PROVIDERS
from ratekeeper.simulator.server import Simulator, serving
from tests.cli import running
from tests.client import clients
from tests.client.wire import Script, Wire, http

CANARY = "c4n4ryAbCdEfGhIjKlMnOpQrStUvWxYz0123456"
KEY = f"sk-proj-{CANARY}7h2Q"
HELLO = ("--probe", "--model", "gpt-4o")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Said:
    """What one run of the command came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.out)
        return facts


def _host(wire: Wire) -> str:
    return wire.url.removeprefix("http://").removesuffix("/v1")


CheckKey = Callable[..., Said]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing of this machine's own keys, URLs and proxies."""
    for provider in PROVIDERS.values():
        monkeypatch.delenv(provider.key_variable, raising=False)
        monkeypatch.delenv(f"{provider.name.upper()}_BASE_URL", raising=False)
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def check_key(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> CheckKey:
    """Run the command with a key in its variable; nowhere may more than its end show."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "ratekeeper")

    def check(
        *arguments: str, key: str | None = KEY, variable: str = "OPENAI_API_KEY"
    ) -> Said:
        if key is not None:
            monkeypatch.setenv(variable, key)
        code = run(["check-key", *arguments])
        out, err = capfd.readouterr()
        for text in (out, err, *caplog.messages):
            assert CANARY[-12:] not in text
            assert CANARY[:12] not in text
        return Said(code, out, err)

    return check


def _error(status: int, code: str, *headers: str) -> bytes:
    said = {"message": f"Wrong: {KEY}", "type": code, "code": code}
    return http(status, json.dumps({"error": said}).encode(), *headers)


MODELS = b'{"object": "list", "data": []}'


# Without an answer


def test_without_a_key_the_line_to_type_is_told(check_key: CheckKey) -> None:
    said = check_key("holysheep", key=None)

    assert 2 == said.code
    assert "" == said.out
    assert (
        "holysheep: there is no key: HOLYSHEEP_API_KEY is not set or empty\n"
        "  to do     type: export HOLYSHEEP_API_KEY=sk-…; keys begin with sk- or hs-; "
        "get one at https://www.holysheep.ai\n"
    ) == said.err


@pytest.mark.parametrize(
    ("key", "words", "reason"),
    [
        ("YOUR_OPENAI_API_KEY", "holds a placeholder, not a key", "placeholder"),
        ("sk-" + "x" * 45, "holds a placeholder, not a key", "placeholder"),
        ("sk-4f9aK2m8Qz7LxT0v", "holds 19 characters", "too short"),
        (
            "sk-4f9aK2m8Qz7LxT0vB3nR6yWc",
            "holds 27 characters, and keys of openai have at least 40",
            "too short",
        ),
        (f'"{KEY}"', "has quotation marks around the key", "quoted"),
        (f"{KEY} {KEY}", "holds characters that no key has", "characters"),
        (KEY * 100, "holds 5100 characters, and that is longer", "too long"),
    ],
)
def test_what_cannot_be_a_key_is_not_sent(
    check_key: CheckKey, key: str, words: str, reason: str
) -> None:
    said = check_key("openai", key=key)
    as_json = check_key("openai", "--json", key=key)

    assert (2, "") == (said.code, said.out)
    assert f"openai: OPENAI_API_KEY {words}" in said.err
    assert "nothing was sent" in said.err
    assert key not in said.err
    assert (2, "malformed", reason) == (
        as_json.code,
        as_json.facts["status"],
        as_json.facts["reason"],
    )


def test_no_provider_takes_keys_of_less_than_twenty_characters() -> None:
    assert all(20 <= provider.key_min_length for provider in PROVIDERS.values())


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_no_key_exits_with_2_in_json_as_well(
    check_key: CheckKey, arguments: tuple[str, ...]
) -> None:
    assert 2 == check_key("openai", *arguments, key="  ").code


def test_a_url_needs_a_variable_named(check_key: CheckKey) -> None:
    said = check_key("http://127.0.0.1:9/v1")

    assert 2 == said.code
    assert "name it with --key-env" in said.err


def test_a_provider_whose_accounts_have_urls_of_their_own_needs_one(
    check_key: CheckKey,
) -> None:
    said = check_key("azure", variable="AZURE_OPENAI_API_KEY")

    assert (2, "") == (said.code, said.out)
    assert "give --base-url https://RESOURCE.openai.azure.com/openai/v1" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        (KEY,),
        (CANARY,),
        ("openai", KEY),
        ("openai", "--key", KEY),
        ("openai", f"--key={KEY}"),
        ("openai", f"--api-key={KEY}"),
        ("openai", "--key-env", KEY),
        ("openai", "--key-env", CANARY.lower()),
        ("openai", f"--key-env={KEY}"),
        ("openai", "--timeout", KEY),
        ("openai", f"--timeout={CANARY}"),
    ],
)
def test_a_key_as_an_argument_is_refused_and_not_repeated(
    check_key: CheckKey, arguments: tuple[str, ...]
) -> None:
    said = check_key(*arguments, key=None)

    assert (2, "") == (said.code, said.out)
    assert "a key is never given as an argument" in said.err
    assert CANARY.lower() not in said.err


def test_a_key_as_a_base_url_is_not_repeated(check_key: CheckKey) -> None:
    said = check_key("openai", "--base-url", KEY)

    assert 2 == said.code
    assert "the base URL" in said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("opnai",), "did you mean 'openai'?"),
        (("openai", "--probe"), "--probe needs --model"),
        (("openai", "--model", "gpt-4o"), "--probe needs --model"),
        (("openai", "--key-env", "A", "--key-stdin"), "not both"),
        (("openai", "--timeout", "0"), "--timeout"),
        (("openai", "--frobnicate"), "No such option"),
        ((), "Missing argument"),
    ],
)
def test_bad_usage_says_what_is_wrong(
    check_key: CheckKey, arguments: tuple[str, ...], words: str
) -> None:
    said = check_key(*arguments)

    assert (2, "") == (said.code, said.out)
    assert words in said.err


# What the provider says


def test_a_valid_key_is_told_with_round_trip_and_limits(check_key: CheckKey) -> None:
    shows = (
        "x-ratelimit-limit-requests: 500",
        "x-ratelimit-remaining-requests: 499",
        "x-ratelimit-reset-requests: 120ms",
        "x-ratelimit-limit-tokens: 120000",
        "x-ratelimit-remaining-tokens: 120000",
        "x-ratelimit-reset-tokens: 1ms",
    )
    with Wire(http(200, MODELS, *shows)) as wire:
        said = check_key("openai", "--base-url", wire.url)
        host = _host(wire)
    first, answered, *limits = said.out.splitlines()

    assert (0, "") == (said.code, said.err)
    assert "openai: the key of OPENAI_API_KEY (…7h2Q) is valid" == first
    assert answered.startswith(f"  answered  200 from {host} in ")
    assert answered.endswith(" ms, connection included")
    assert [
        "  limits    500 requests/minute: 499 remaining, whole again in 0.12 s",
        "            120k tokens (it does not say per what): 120,000 remaining",
    ] == limits
    assert b"GET /v1/models HTTP/1.1" == wire.requests[0].splitlines()[0]
    assert f"Bearer {KEY}".encode() in wire.requests[0]


def test_an_answer_that_shows_no_limits_says_so_and_spends_nothing(
    check_key: CheckKey,
) -> None:
    with Wire(http(200, MODELS)) as wire:
        said = check_key("openai", "--base-url", wire.url)

    assert 0 == said.code
    assert "the answer shows no limits: --probe --model MODEL asks" in said.out
    assert 1 == len(wire.requests)


def test_a_probe_is_one_call_of_one_token(check_key: CheckKey) -> None:
    with serving(Simulator("openai", ["7 rpm", "10k tpm"], latency_s=0)) as url:
        said = check_key("openai", "--base-url", url, *HELLO, "--json")

    limits = {one["unit"]: one for one in said.facts["limits"]}
    assert 0 == said.code
    assert (7, 6) == (limits["requests"]["amount"], limits["requests"]["remaining"])


def test_a_probe_that_shows_no_limits_does_not_ask_for_a_probe(
    check_key: CheckKey,
) -> None:
    with Wire(http(200, b'{"id": "1", "choices": []}')) as wire:
        said = check_key("openai", "--base-url", wire.url, *HELLO)

    assert said.out.endswith("  limits    the answer shows no limits\n")
    assert b'"max_tokens":1,' in wire.requests[0]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "deepseek", "holysheep"])
def test_the_simulator_takes_its_own_key_and_no_other(
    check_key: CheckKey, provider: str
) -> None:
    variable = PROVIDERS[provider].key_variable
    prefix = PROVIDERS[provider].key_prefixes[0]
    key = f"{prefix}{CANARY}7h2Q"
    simulator = Simulator(provider, latency_s=0, keys=[key])
    found = []
    with serving(simulator) as url:
        for sent in (key, f"{prefix}{CANARY}0000"):
            said = check_key(
                provider, "--base-url", url, "--json", key=sent, variable=variable
            )
            found.append((said.code, said.facts["status"]))
        probed = check_key(
            provider, "--base-url", url, *HELLO, key=key, variable=variable
        )

    assert [(0, "ok"), (1, "refused")] == found
    assert (0, "") == (probed.code, probed.err)


ANSWERS: dict[str, tuple[bytes, int, str, tuple[str, ...]]] = {
    "refused": (
        _error(401, "invalid_api_key"),
        1,
        "refused",
        (
            "the key of OPENAI_API_KEY (…7h2Q) is refused: HOST answered 401 "
            "(invalid_api_key)",
            "type: export OPENAI_API_KEY=sk-…",
            "get one at https://platform.openai.com/api-keys",
        ),
    ),
    "no permission": (
        _error(403, "permission_error"),
        1,
        "no permission",
        (
            "(…7h2Q) is known, and has no permission: HOST answered 403 "
            "(permission_error)",
            "if it is not allowed it, try --probe --model MODEL",
        ),
    ),
    "throttled": (
        _error(429, "rate_limit_exceeded", "retry-after: 20"),
        0,
        "throttled",
        ("is valid, throttled just now: HOST answered 429", "; try again in 20 s\n"),
    ),
    "throttled for a time not told": (
        _error(429, "rate_limit_exceeded"),
        0,
        "throttled",
        ("is valid, throttled just now", "; it does not say for how long\n"),
    ),
    "no credit": (
        _error(429, "insufficient_quota"),
        3,
        "no credit",
        (
            "is valid, and its account is stopped: HOST answered 429 "
            "(insufficient_quota)",
            "waiting does not help",
        ),
    ),
    "trouble": (
        _error(500, "server_error"),
        1,
        "cannot tell",
        ("nobody can tell: HOST answered 500", "trouble of its own", "in a minute"),
    ),
    "overload": (
        _error(503, "server_is_overloaded", "retry-after: 9"),
        1,
        "cannot tell",
        ("nobody can tell: HOST answered 503", "try again in 9 s"),
    ),
    "no such page": (
        _error(404, "not_found"),
        1,
        "cannot tell",
        ("HOST answered 404 (not_found)\n", "if it is not served there, try --probe"),
    ),
    "another question": (
        _error(400, "invalid_request"),
        1,
        "cannot tell",
        ("rejects the question itself", "check --base-url"),
    ),
    "a redirect": (
        http(302, b"", "location: http://127.0.0.1:9/login"),
        1,
        "cannot tell",
        ("HOST answered 302, which is a redirect", "another host or another path"),
    ),
    "a page for people": (
        http(200, b"<html>Log in</html>", "content-type: text/html"),
        1,
        "cannot tell",
        ("HOST answered 200 with something that is no answer", "a page to log in"),
    ),
    "a proxy's": (
        http(407),
        1,
        "cannot tell",
        ("HOST answered 407", "user and password of the proxy into HTTPS_PROXY"),
    ),
}


@pytest.mark.parametrize(
    ("answer", "code", "status", "words"), ANSWERS.values(), ids=ANSWERS
)
def test_an_answer_has_its_words_and_its_exit_code(
    check_key: CheckKey, answer: bytes, code: int, status: str, words: tuple[str, ...]
) -> None:
    with Wire(answer) as wire:
        said = check_key("openai", "--base-url", wire.url)
        as_json = check_key("openai", "--base-url", wire.url, "--json")
        host = _host(wire)

    for word in words:
        assert word.replace("HOST", host) in said.out
    assert (code, "") == (said.code, said.err)
    assert (code, status) == (as_json.code, as_json.facts["status"])
    assert 2 == len(wire.requests)


def test_a_probe_s_model_is_what_to_check_where_it_is_rejected(
    check_key: CheckKey,
) -> None:
    with Wire(_error(404, "model_not_found")) as wire:
        said = check_key("openai", "--base-url", wire.url, *HELLO)

    assert 1 == said.code
    assert "answered 404 (model_not_found)\n" in said.out
    assert "  to do     check --model and --base-url\n" in said.out


def test_a_key_of_another_form_is_warned_of_and_sent(check_key: CheckKey) -> None:
    with Wire(http(200, MODELS)) as wire:
        said = check_key("openai", "--base-url", wire.url, key=f"zz-{CANARY}7h2Q")
        as_json = check_key("openai", "--base-url", wire.url, "--json")

    warning = (
        "the key of OPENAI_API_KEY (…7h2Q) does not begin like a key of openai (sk-): "
        "it was sent all the same"
    )
    assert 0 == said.code
    assert f"warning: {warning}\n" == said.err
    assert "is valid" in said.out
    assert 2 == len(wire.requests)
    assert [] == as_json.facts["warnings"]


def test_where_the_environment_sends_calls_is_where_is_asked(
    check_key: CheckKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Wire(http(200, MODELS)) as wire:
        monkeypatch.setenv("OPENAI_BASE_URL", wire.url)
        said = check_key("openai")

    assert 0 == said.code
    assert 1 == len(wire.requests)


def test_the_key_of_a_url_comes_from_the_variable_named(check_key: CheckKey) -> None:
    with Wire(http(200, MODELS)) as wire:
        said = check_key(wire.url, "--key-env", "my_key", variable="my_key")

    assert 0 == said.code
    assert "127.0.0.1: the key of my_key (…7h2Q) is valid" == said.out.splitlines()[0]
    assert f"Bearer {KEY}".encode() in wire.requests[0]


# Where no answer comes


def _of(facts: dict[str, Any]) -> tuple[str, str]:
    return facts["status"], facts["reason"]


@pytest.mark.parametrize(
    ("url", "reason", "words"),
    [
        (
            "http://127.0.0.1:PORT/v1",
            "refused",
            "127.0.0.1:PORT refused the connection",
        ),
        ("http://nobody.invalid/v1", "dns", "nobody.invalid cannot be resolved"),
        ("http://a..b/v1", "dns", "a..b cannot be resolved"),
    ],
)
def test_a_provider_that_is_not_there_is_told_with_what_to_check(
    check_key: CheckKey, url: str, reason: str, words: str
) -> None:
    port = str(clients.closed_port())
    url = url.replace("PORT", port)
    said = check_key("openai", "--base-url", url)
    as_json = check_key("openai", "--base-url", url, "--json")

    assert (1, "") == (said.code, said.err)
    assert (
        f"openai: unreachable: {'the name of ' if reason == 'dns' else ''}" in said.out
    )
    assert words.replace("PORT", port) in said.out
    assert "  to do     check --base-url" in said.out
    assert "no proxy was used: where only one leads out, set HTTPS_PROXY" in said.out
    assert ("unreachable", reason) == _of(as_json.facts)
    assert as_json.facts["http_status"] is None


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    check_key: CheckKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"127.0.0.1:{clients.closed_port()}"
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:pa55word@{proxy}")
    said = check_key("openai")
    as_json = check_key("openai", "--json")

    assert 1 == said.code
    assert f"the proxy {proxy} did not connect to api.openai.com" in said.out
    assert "check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY" in said.out
    assert "pa55word" not in said.out + said.err + as_json.out
    assert ("unreachable", "proxy") == _of(as_json.facts)
    assert proxy == as_json.facts["proxy"]


def test_a_proxy_on_the_way_is_told(
    check_key: CheckKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Wire(http(200, MODELS), Script(end="close")) as proxy:
        host = _host(proxy)
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pa55word@{host}")
        answered = check_key("openai", "--base-url", "http://llm.example/v1")
        broken = check_key("openai", "--base-url", "http://llm.example/v1")

    assert f"connection included, through the proxy {host}\n" in answered.out
    assert "the connection to llm.example broke" in broken.out
    assert f"it was asked through the proxy {host}\n" in broken.out
    assert "pa55word" not in answered.out + broken.out


def test_a_certificate_nobody_trusts_is_told(check_key: CheckKey) -> None:
    context = clients.server_context()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=shake, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        said = check_key("openai", "--base-url", f"https://127.0.0.1:{port}/v1")
        thread.join(5)

    assert 1 == said.code
    assert f"unreachable: no secure connection to 127.0.0.1:{port}" in said.out
    assert "SSL_CERT_FILE" in said.out


def test_a_server_that_takes_no_connection_is_given_up_in_time(
    check_key: CheckKey,
) -> None:
    began = time.monotonic()
    with clients.deaf_port() as port:
        url = f"http://127.0.0.1:{port}/v1"
        said = check_key("openai", "--base-url", url, "--timeout", "0.3", "--json")

    assert time.monotonic() - began < 5
    assert (1, ("unreachable", "connect-timeout")) == (said.code, _of(said.facts))
    assert "did not accept a connection within 0.3 s" in said.facts["verdict"]


@pytest.mark.parametrize("parts", [(9.0,), (http(200, MODELS)[:20], 9.0)])
def test_a_server_that_does_not_answer_is_given_up_in_time(
    check_key: CheckKey, parts: tuple[Any, ...]
) -> None:
    began = time.monotonic()
    with Wire(Script(*parts)) as wire:
        said = check_key("openai", "--base-url", wire.url, "--timeout", "0.3", "--json")

    assert time.monotonic() - began < 5
    assert (1, ("unreachable", "read-timeout")) == (said.code, _of(said.facts))
    assert "did not answer within 0.3 s" in said.facts["verdict"]


def test_a_server_that_answers_byte_by_byte_is_given_up_in_time(
    check_key: CheckKey,
) -> None:
    answer = http(200, MODELS, *(f"x-more: {n}" for n in range(99)))
    drops = [part for byte in answer for part in (bytes([byte]), 0.05)]
    began = time.monotonic()
    with Wire(Script(*drops)) as wire:
        said = check_key("openai", "--base-url", wire.url, "--timeout", "0.3", "--json")

    assert time.monotonic() - began < 5
    assert (1, "unreachable") == (said.code, said.facts["status"])


def test_a_name_server_that_does_not_answer_is_given_up_in_time(
    check_key: CheckKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up knows no time-out: a thread that hangs in one must not hold the command."""
    found = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        found.wait(15)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    url = "http://llm.example/v1"
    said = check_key("openai", "--base-url", url, "--timeout", "0.2", "--json")
    took_s = time.monotonic() - began
    found.set()

    assert took_s < 5
    assert (1, ("unreachable", "deadline")) == (said.code, _of(said.facts))
    assert "llm.example" == said.facts["host"]
    assert "check the DNS server" in said.facts["to_do"]


# JSON, standard input, and a process of its own


def test_json_has_the_same_names_whatever_is_found(check_key: CheckKey) -> None:
    names = [
        "provider", "host", "proxy", "variable", "key", "ok", "status", "reason",
        "http_status", "code", "round_trip_ms", "retry_after_s", "limits", "warnings",
        "verdict", "to_do",
    ]  # fmt: skip
    with Wire(_error(429, "rate_limit_exceeded", "retry-after: 20")) as wire:
        throttled = check_key("openai", "--base-url", wire.url, "--json").facts
    missing = check_key("openai", "--json", key="").facts

    assert [names, names] == [list(throttled), list(missing)]
    assert (True, 429, 20.0, "rate_limit_exceeded", "…7h2Q") == (
        throttled["ok"],
        throttled["http_status"],
        throttled["retry_after_s"],
        throttled["code"],
        throttled["key"],
    )
    assert throttled["round_trip_ms"] > 0
    assert ("no key", None, None, None) == (
        missing["status"],
        missing["http_status"],
        missing["round_trip_ms"],
        missing["key"],
    )


def test_a_limit_in_json_has_the_same_names_whatever_is_known(
    check_key: CheckKey,
) -> None:
    shows = ("x-ratelimit-limit-requests: 5", "x-ratelimit-remaining-tokens: 9")
    with Wire(http(200, MODELS, *shows)) as wire:
        url = wire.url
        limits = check_key("openai", "--base-url", url, "--json").facts["limits"]
        said = check_key("openai", "--base-url", url)

    nothing = {"limit": None, "window_s": None, "full_after_s": None}
    assert [
        {**nothing, "unit": "requests", "amount": 5, "remaining": None},
        {**nothing, "unit": "tokens", "amount": None, "remaining": 9},
    ] == limits
    assert "  limits    5 requests (it does not say per what)\n" in said.out
    assert "            tokens: 9 remaining\n" in said.out


def _process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*running.START, "check-key", *arguments],
        capture_output=True,
        timeout=15,
        check=False,
        **options,
    )


@pytest.mark.parametrize("given", [KEY, f"  {KEY}\r\n", f"{KEY}\nsomething else\n"])
def test_a_key_comes_from_standard_input(given: str) -> None:
    with Wire(http(200, MODELS)) as wire:
        done = _process(
            "openai", "--base-url", wire.url, "--key-stdin", input=given.encode()
        )

    assert (0, b"") == (done.returncode, done.stderr)
    assert "the key of standard input (…7h2Q) is valid" in done.stdout.decode()
    assert f"Bearer {KEY}".encode() in wire.requests[0]
    assert CANARY.encode() not in done.stdout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "there is no key: standard input is empty"),
        (b"\xff\xfe\x00" * 9, "standard input holds characters that no key has"),
        (b"k" * 100_000, "standard input holds 8192 characters"),
    ],
)
def test_what_is_no_key_on_standard_input_is_told(given: bytes, words: str) -> None:
    done = _process("openai", "--key-stdin", input=given)

    assert (2, b"") == (done.returncode, done.stdout)
    assert words in done.stderr.decode()


def test_a_key_typed_on_a_terminal_does_not_show() -> None:
    ours, theirs = pty.openpty()
    with Wire(http(200, MODELS)) as wire, io.FileIO(ours, "r+") as terminal:
        process = subprocess.Popen(
            [
                *running.START,
                "check-key",
                "openai",
                "--base-url",
                wire.url,
                "--key-stdin",
            ],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        while b"Key: " not in shown:
            shown += terminal.read(1024)
        terminal.write(f"{KEY}\n".encode())
        with contextlib.suppress(OSError):  # as a terminal ends on Linux
            while more := terminal.read(1024):
                shown += more
        code = process.wait(10)

    assert 0 == code
    assert "(…7h2Q) is valid" in shown.decode()
    assert CANARY.encode() not in shown


def test_a_server_that_answers_with_the_key_does_not_get_it_printed(
    check_key: CheckKey,
) -> None:
    garbage = b"HTTP/1.1 " + KEY.encode() + b"\r\n\r\n"
    with Wire(Script(garbage, end="close")) as wire:
        said = check_key("openai", "--base-url", wire.url)
        environ = {**os.environ, "OPENAI_API_KEY": KEY}
        done = _process("openai", "--base-url", wire.url, env=environ)

    assert (1, 1) == (said.code, done.returncode)
    assert "broke before the answer was complete" in said.out
    assert CANARY.encode() not in done.stdout + done.stderr


def test_the_traceback_of_an_error_nobody_foresaw_shows_no_key(
    check_key: CheckKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(socket, "create_connection", fail)
    with pytest.raises(RuntimeError) as caught:
        check_key("openai", "--base-url", "http://llm.example/v1")
    shown = "".join(traceback.format_exception(caught.value))

    assert "unforeseen" in shown
    assert CANARY not in shown
