"""What somebody mistyped is not printed: not in a message, not in a chained cause."""

from __future__ import annotations

import operator
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ratekeeper
from ratekeeper import ConfigError
from ratekeeper.config import load
from tests.client import clients
from tests.client.wire import Wire, http

CANARY = "canary7d1f0b52c4"


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> clients.Opened:
    return clients.opener(request.param)


def _printed(act: Callable[[], Any]) -> str:
    """Print what an error shows, causes and all, but not the lines of our own files."""
    with pytest.raises(ConfigError) as caught:
        act()
    lines = traceback.format_exception(caught.value)
    return "".join(line for line in lines if not line.startswith('  File "'))


PROXIES = [
    f"user:{CANARY}@proxy.test:3128",
    f"http://user:{CANARY}",
    f"http://user:{CANARY}/1@proxy.test:3128",
    f"http://user:{CANARY}#1@proxy.test:3128",
    f"ftp://user:{CANARY}@proxy.test",
    f"http://user:{CANARY}@proxy.test:99999",
]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_that_is_wrong_is_not_printed(
    make: clients.Opened, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [
        _printed(lambda: make("openai", proxy=proxy)),
        _printed(lambda: ratekeeper.http_client("openai", "9 rpm", proxy=proxy)),
        _printed(lambda: ratekeeper.async_http_client("openai", "9 rpm", proxy=proxy)),
    ]
    # Where the environment's has no scheme, it is http.
    monkeypatch.setenv("HTTPS_PROXY", proxy if "://" in proxy else PROXIES[1])
    found = [
        _printed(lambda: make("openai")),
        _printed(lambda: ratekeeper.http_client("openai", "9 rpm")),
    ]

    assert CANARY not in "".join(given + found)
    assert all("proxy= is a URL" in text for text in given)
    assert all("HTTPS_PROXY is a URL" in text for text in found)


def test_a_port_that_is_none_is_not_printed(make: clients.Opened) -> None:
    printed = _printed(lambda: make("openai", base_url=f"https://user:{CANARY}"))

    assert CANARY not in printed


def test_a_key_in_the_place_of_a_variable_is_not_printed(make: clients.Opened) -> None:
    printed = _printed(lambda: make("openai", api_key=f"env:sk-{CANARY}"))

    assert CANARY not in printed


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {CANARY} "},
        {"x-api-key": f" {CANARY}"},
        {f"x {CANARY}": "1"},
        {"x-a:": CANARY},
        {"": CANARY},
    ],
)
def test_a_header_that_cannot_be_sent_is_not_printed(
    make: clients.Opened, headers: dict[str, str]
) -> None:
    with Wire(http(200, b"{}")) as wire, make("openai", base_url=wire.url) as ai:
        printed = _printed(
            lambda: ai.do(lambda c: c.request("GET", "/models", headers=headers))
        )

        assert [] == wire.requests
    if CANARY in "".join(headers.values()):
        assert CANARY not in printed


def test_a_method_that_cannot_be_sent_is_refused_before(make: clients.Opened) -> None:
    with Wire(http(200, b"{}")) as wire, make("openai", base_url=wire.url) as ai:
        for method in ("GET /x HTTP/1.1\r\nx-a:", "", "G\x00T"):
            with pytest.raises(ConfigError, match="method="):
                ai.do(operator.methodcaller("request", method, "/models"))

        assert [] == wire.requests


@pytest.mark.parametrize(
    "text",
    [
        f'api_key: "sk-{CANARY}\n',
        f"api_key: sk-{CANARY}: b",
        f"- sk-{CANARY}\nb: c",
        f"api_key: !!int {CANARY}",
        f"api_key: *{CANARY}",
    ],
)
def test_a_file_that_is_no_yaml_is_not_printed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text(text)

    assert CANARY not in _printed(lambda: load.read(path))


def test_a_number_of_a_hundred_thousand_digits_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("a = " + "1" * 100_000)

    with pytest.raises(ConfigError, match="a number that is too long"):
        load.read(path)


def test_a_mistake_of_depth_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("a: &x [1]\nb: *x")
    with pytest.raises(ConfigError) as caught:
        load.read(path)

    assert "limits.yaml:2: anchors are not read here: write it out" == str(caught.value)
