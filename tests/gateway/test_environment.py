"""Which keys a config needs of its machine, and what is said of those that lack."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ratekeeper.config.model import Config
from ratekeeper.errors import ConfigError
from ratekeeper.gateway.environment import completed
from tests.gateway import gates

if TYPE_CHECKING:
    from pathlib import Path

KEY = "sk-0123456789abcdefghijklmnopqrstuvwxyz0123456789"
OPENAI = {"accounts": [{"limits": ["5 rpm"]}]}
BOTH = ["openai/gpt-4o", "holysheep/gpt-4o"]


def _config(**said: Any) -> Config:
    return msgspec.convert({"providers": {"openai": OPENAI}, **said}, Config)


def _complaint(config: Config, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        completed(config, environ)
    return str(caught.value)


def test_a_provider_that_fallbacks_alone_name_has_its_usual_account() -> None:
    environ = {"OPENAI_API_KEY": KEY, "HOLYSHEEP_API_KEY": KEY}
    whole, off = completed(_config(fallbacks={"gpt-4o": BOTH}), environ)

    assert {} == off
    assert ["openai", "holysheep"] == list(whole.providers)
    assert "env:HOLYSHEEP_API_KEY" == whole.providers["holysheep"].accounts[0].api_key


def test_without_its_key_fallbacks_go_without_it() -> None:
    config = _config(fallbacks={"gpt-4o": BOTH})
    whole, off = completed(config, {"OPENAI_API_KEY": KEY, "HOLYSHEEP_API_KEY": " "})

    assert {"holysheep": "HOLYSHEEP_API_KEY"} == off
    assert ["openai"] == list(whole.providers)
    assert {"gpt-4o": ["openai/gpt-4o"]} == whole.fallbacks


def test_a_model_that_would_have_nobody_left_is_a_mistake() -> None:
    config = _config(fallbacks={"a": ["groq/a", "xai/a"], "b": BOTH})

    assert (
        "fallbacks.a: none of them has its key; type: export GROQ_API_KEY=gsk_…; keys "
        "begin with gsk_; get one at https://console.groq.com/keys"
    ) == _complaint(config, OPENAI_API_KEY=KEY)


def test_a_key_of_a_fallback_that_can_be_none_is_a_mistake() -> None:
    config = _config(fallbacks={"gpt-4o": BOTH})
    environ = {"OPENAI_API_KEY": KEY, "HOLYSHEEP_API_KEY": "your-key-here"}

    assert (
        "providers.holysheep.accounts[0].api_key: the environment variable "
        "HOLYSHEEP_API_KEY holds a placeholder, not a key; type: export "
        "HOLYSHEEP_API_KEY=sk-…"
    ) in _complaint(config, **environ)


def test_every_key_that_lacks_is_told_with_its_place_and_what_to_type() -> None:
    accounts = [
        {"api_key": "env:ONE"},
        {"api_key": "env:TWO"},
        {"api_key": "env:THREE"},
    ]
    own = {"base_url": "http://x/v1", "accounts": [{"limits": ["5 rpm"]}]}
    config = _config(providers={"openai": {"accounts": accounts}, "own": own})
    said = _complaint(config, TWO=KEY, THREE="sk-…").splitlines()

    assert 2 == len(said)
    assert said[0].startswith(
        "providers.openai.accounts[0].api_key: the environment variable ONE is not "
        "set; type: export ONE=sk-…; keys begin with sk-"
    )
    assert said[1].startswith(
        "providers.openai.accounts[2].api_key: the environment variable THREE holds "
        "characters that no key has"
    )
    assert not any("api_key=" in one for one in said)


def test_a_gateway_whose_fallback_lacks_its_key_starts_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ratekeeper.gateway")
    with gates.behind() as upstream:
        config = gates.config(
            tmp_path,
            {"openai": gates.account(upstream.url)},
            fallbacks={"gpt-4o": ["holysheep/gpt-4o", "openai/gpt-4o"]},
        )
        with gates.gate(config) as it, it.client() as client:
            reply = it.chat(client)

    assert 200 == reply.status_code
    assert ["fallbacks go without holysheep: HOLYSHEEP_API_KEY is not set"] == [
        record.getMessage() for record in caplog.records
    ]
