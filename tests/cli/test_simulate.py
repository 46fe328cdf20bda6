"""`ratekeeper simulate`, with real processes, ports and signals."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path

import anthropic
import httpx2
import openai
import pytest

import ratekeeper
from ratekeeper.simulator.dialects import KNOWN
from tests.cli.running import run, simulate


def follow(curl: str) -> httpx2.Response:
    """Do what a printed curl line says."""
    words = shlex.split(curl)
    assert "curl" == words[0]
    url = words[1]
    lines = [words[i + 1] for i, word in enumerate(words) if word == "-H"]
    headers = dict(line.split(": ", 1) for line in lines)
    body = words[words.index("-d") + 1]
    return httpx2.post(url, content=body, headers=headers)


def test_the_help_names_every_provider() -> None:
    said = run("simulate", "--help").stdout

    assert [] == [name for name in KNOWN if name not in said]


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("bedrock", {"messages": [{"role": "user", "content": [{"text": "x"}]}]}),
        ("cohere", {"model": "m", "messages": [{"role": "user", "content": "x"}]}),
        ("gemini", {"contents": [{"parts": [{"text": "x"}]}]}),
        ("vertex", {"contents": [{"parts": [{"text": "x"}]}]}),
    ],
)
def test_it_says_where_a_provider_has_an_api_of_its_own(
    provider: str, body: dict[str, object]
) -> None:
    with simulate(provider, "--latency", "0") as served:
        own = re.search(r"^  own API    (http.*)$", served.greeting, re.MULTILINE)
        assert own is not None
        response = httpx2.post(
            own[1], json=body, headers={"authorization": "Bearer sk-any"}
        )

    assert 200 == response.status_code


@pytest.mark.parametrize(
    "provider",
    ["openai", "anthropic", "deepseek", "vertex", "bedrock", "cohere", "xai"],
)
def test_the_curl_line_it_prints_works_as_it_stands(provider: str) -> None:
    with simulate(provider, "--latency", "0") as served:
        curl = re.search(r"^  (curl .*)$", served.greeting, re.MULTILINE)
        assert curl is not None
        response = follow(curl[1])

    assert 200 == response.status_code
    assert "usage" in response.json()


@pytest.mark.parametrize("provider", ["openai", "deepseek", "groq"])
def test_the_lines_of_python_it_prints_make_clients_that_work(provider: str) -> None:
    names = {"OpenAI": openai.OpenAI, "ratekeeper": ratekeeper}
    with simulate(provider, "--latency", "0", "--limit", "5 rpm") as served:
        bare = re.search(r"^  Python   (.*)$", served.greeting, re.MULTILINE)
        limited = re.search(r"^  (OpenAI\(.*\n.*)$", served.greeting, re.MULTILINE)
        assert bare is not None
        assert limited is not None
        for written in (bare[1], limited[1]):
            with eval(written, dict(names)) as ai:
                completion = ai.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "x"}]
                )

                assert completion.choices[0].message.content


def test_the_lines_it_prints_for_anthropic_work_too() -> None:
    names = {"Anthropic": anthropic.Anthropic, "ratekeeper": ratekeeper}
    with simulate("anthropic", "--latency", "0") as served:
        limited = re.search(r"^  (Anthropic\(.*\n.*)$", served.greeting, re.MULTILINE)
        assert limited is not None
        with eval(limited[1], dict(names)) as claude:
            message = claude.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
            )

    assert message.content


def test_the_base_url_it_prints_serves_the_official_sdks() -> None:
    with simulate("openai", "--json", "--latency", "0") as served:
        ai = openai.OpenAI(base_url=served.facts["base_url"], api_key="sk-any")
        with ai:
            completion = ai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}]
            )
    with simulate("anthropic", "--json", "--latency", "0") as served:
        claude = anthropic.Anthropic(
            base_url=served.facts["base_url"], api_key="sk-any"
        )
        with claude:
            message = claude.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}]
            )

    assert completion.choices[0].message.content
    assert message.content


def test_interrupted_it_sums_up_what_it_saw_and_exits_130() -> None:
    with simulate("openai", "--limit", "1 rpm", "--latency", "0") as served:
        curl = re.search(r"^  (curl .*)$", served.greeting, re.MULTILINE)
        assert curl is not None
        statuses = [follow(curl[1]).status_code for _ in range(3)]
        code, out, err = served.end()

    assert [200, 429, 429] == statuses
    assert 130 == code
    assert "3 requests, 1x 200, 2x 429" in out
    assert "2x 1 requests/minute" in out
    assert "" == err


def test_terminated_it_exits_0_with_its_figures_as_json() -> None:
    with simulate("openai", "--json") as served:
        code, out, err = served.end(signal.SIGTERM)

    assert 0 == code
    assert 0 == json.loads(out)["stats"]["requests"]
    assert "" == err


def test_the_limits_of_a_tier_come_from_the_presets() -> None:
    with simulate("openai", "--json", "--tier", "free", "--model", "gpt-4") as served:
        limits = served.facts["limits"]

    assert ["50 requests/minute", "15k tokens/minute"] == limits


def test_keys_faults_and_bans_are_in_force() -> None:
    with simulate(
        "openai",
        *("--json", "--latency", "0", "--key", "sk-mine", "--limit", "1 rpm"),
        *("--fault", "status=500 # 1", "--ban-after", "2", "--ban-hours", "3"),
    ) as served:
        url = f"{served.facts['base_url']}/chat/completions"
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}

        def ask(key: str) -> httpx2.Response:
            headers = {"authorization": f"Bearer {key}"}
            return httpx2.post(url, json=body, headers=headers)

        answers = [ask(key) for key in ["sk-mine", "sk-other", *["sk-mine"] * 3]]

    assert [500, 401, 429, 429, 429] == [one.status_code for one in answers]
    assert "temporarily_banned" == answers[-1].json()["error"]["code"]
    assert 3 * 3600 - 60 < int(answers[-1].headers["retry-after"]) <= 3 * 3600


def test_a_port_in_use_is_told_and_exits_2() -> None:
    with simulate("openai", "--json") as served:
        port = served.facts["stats_url"].removesuffix("/_stats").rpartition(":")[2]
        done = run("simulate", "openai", "--port", port)

    assert 2 == done.returncode
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
    assert ": take another port, or 0 for a free one" in done.stderr
    assert "" == done.stdout


def test_a_bad_limit_points_at_the_word_and_exits_2() -> None:
    done = run("simulate", "openai", "--limit", "500 rmp")

    assert 2 == done.returncode
    assert "" == done.stdout
    assert "\n  500 rmp\n      ^^^\n" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("opnai",), "did you mean 'openai'"),
        (("openai", "--limit", "5 otpm"), "does not count output_tokens"),
        (("openai", "--fault", "stats=5 @ 0.1"), "'stats' is not known"),
        (("openai", "--fault", "status=500"), "how often it comes"),
        (("openai", "--latency", "-1"), "latency"),
        (("openai", "--latency", "nan"), "latency"),
        (("openai", "--ban-after", "5", "--ban-hours", "nan"), "ban"),
        (("openai", "--ban-after", "0"), "--ban-after"),
        (("openai", "--port", "70000"), "--port"),
        (("openai", "--host", "256.1.1.1"), "cannot listen"),
        (("openai", "--enforce", "hope"), "--enforce"),
        (("openai", "--tier", "gold", "--model", "gpt-4"), "gold"),
        (("openai", "--model", "gpt-4"), "--tier"),
        (("openai", "--tier", "free", "--limit", "5 rpm"), "one of --limit"),
        ((), "PROVIDER"),
    ],
)
def test_bad_usage_says_what_was_expected_and_exits_2(
    arguments: tuple[str, ...], said: str
) -> None:
    done = run("simulate", *arguments)

    assert 2 == done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "" == done.stdout


def test_the_limits_may_come_from_an_account_in_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "ratekeeper.yaml"
    file.write_text("providers: {openai: {accounts: [{tier: free, model: gpt-4}]}}\n")
    with simulate("openai", "--config", str(file)) as served:
        greeting = served.greeting

    assert "50 requests/minute, 15k tokens/minute" in greeting


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--config", "FILE", "--limit", "5 rpm"), "give one of --limit, --config"),
        (("--config", "FILE"), "ratekeeper.yaml has no account of openai"),
        (("--config", "absent.yaml"), "cannot read absent.yaml"),
    ],
)
def test_a_config_file_that_does_not_help_is_bad_usage(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    file = tmp_path / "ratekeeper.yaml"
    file.write_text("providers: {anthropic: {accounts: [{tier: free}]}}\n")
    words = tuple(str(file) if word == "FILE" else word for word in words)
    done = run("simulate", "openai", *words)

    assert 2 == done.returncode
    assert says in done.stderr
