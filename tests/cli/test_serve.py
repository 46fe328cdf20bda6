"""`ratekeeper serve`, run as a person does: what it serves, says, and how it ends."""

from __future__ import annotations

import itertools
import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from tests.cli.running import START, Served, serve, simulate
from tests.gateway import gates

OPENAI = "sk-test-0123456789abcdefghijklmnopqrstuvwxyz"


def _chat(served: Served, key: str) -> httpx2.Response:
    body = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
    return httpx2.post(
        f"{served.facts['url']}/v1/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json=body,
        timeout=10,
    )


def test_with_nothing_at_hand_it_serves_a_simulated_provider(tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        facts = served.facts
        reply = _chat(served, facts["client_key"])
        code, _, err = served.end(signal.SIGTERM)

    assert ["openai", "anthropic"] == facts["providers"]
    assert "a simulated provider" == facts["config"]
    assert 200 == reply.status_code
    assert 0 == code
    assert "WARNING what answers is simulated: no config here and no provider" in err
    assert ["WARNING", "INFO"] == [line.split()[2] for line in err.splitlines()]


def test_the_key_of_a_simulated_gateway_is_the_same_at_every_start(
    tmp_path: Path,
) -> None:
    shown, statuses = [], []
    for _ in range(2):
        with serve(tmp_path) as served:
            shown.append(served.facts["client_key"])
            statuses.append(_chat(served, shown[0]).status_code)
            served.end(signal.SIGTERM)
    made = "ratekeeper-simulated.db"

    assert shown[0] == shown[1]
    assert [200, 200] == statuses
    assert not (tmp_path / "ratekeeper.db").exists()
    assert shown[0].encode() not in (tmp_path / made).read_bytes()


def test_a_gateway_that_has_lost_its_environment_simulates_nothing(
    tmp_path: Path,
) -> None:
    with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
        served.end(signal.SIGTERM)
    code, err = _failed(tmp_path, "--listen", "127.0.0.1:0")
    here = ("--store", "sqlite:///ratekeeper.db")
    with_store, _ = _failed(tmp_path, "--listen", "127.0.0.1:0", *here)

    assert [2, 2] == [code, with_store]
    assert "ratekeeper.db has client keys, and there is no config here and no" in err


def test_a_simulated_gateway_starts_where_it_is_told_that_it_may(
    tmp_path: Path,
) -> None:
    with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
        served.end(signal.SIGTERM)
    shown = []
    for _ in range(2):
        with serve(tmp_path, "--store", "sqlite:///ratekeeper-simulated.db") as served:
            shown.append(served.facts["client_key"])
            served.end(signal.SIGTERM)

    assert shown[0] == shown[1]


def test_a_key_that_needs_an_address_beside_it_is_named(tmp_path: Path) -> None:
    with serve(tmp_path, AZURE_OPENAI_API_KEY="0123456789abcdef" * 2) as served:
        _, _, err = served.end(signal.SIGTERM)

    assert "AZURE_OPENAI_API_KEY is not enough: azure has another address" in err


def test_a_client_key_in_the_place_of_a_provider_s_is_not_sent_there(
    tmp_path: Path,
) -> None:
    code, err = _failed(tmp_path, OPENAI_API_KEY="rk-canary" + "0123456789" * 4)

    assert 2 == code
    assert "OPENAI_API_KEY holds a client key of a gateway" in err
    assert "canary" not in err


def test_the_keys_of_the_environment_are_never_spent_for_strangers(
    tmp_path: Path,
) -> None:
    with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
        facts = served.facts
        statuses = [_chat(served, key).status_code for key in ("x", OPENAI)]

    assert "the environment" == facts["config"]
    assert ["openai"] == facts["providers"]
    assert [401, 401] == statuses


def test_a_client_key_is_shown_once(tmp_path: Path) -> None:
    shown = []
    for _ in range(2):
        with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
            shown.append(served.facts["client_key"])
            served.end(signal.SIGTERM)

    assert shown[0].startswith("rk-")
    assert shown[1] is None


def test_it_is_up_within_a_second(tmp_path: Path) -> None:
    took = []
    for _ in range(3):
        begun = time.monotonic()
        with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
            assert served.facts["url"]
            took.append(time.monotonic() - begun)
            served.end(signal.SIGTERM)

    # A second on a machine of its own; this one may be shared by every test.
    assert min(took) < 2.0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to(tmp_path: Path, how: signal.Signals) -> None:
    with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
        code, _, err = served.end(how)

    assert 0 == code
    assert ["INFO told to end, and no answer is open"] == [
        line.split(" ", 2)[2] for line in err.splitlines()
    ]


CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:OPENAI_API_KEY", limits: [500 rpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [{limit}], max_wait: 0s}}
"""


def test_a_config_is_served_and_loaded_anew(tmp_path: Path) -> None:
    file = tmp_path / "ratekeeper.yaml"
    with simulate("openai", "--json") as provider:
        terms = {"url": provider.facts["base_url"], "hash": gates.digest()}
        file.write_text(CONFIG.format(limit="1 request/day", **terms))
        environ = {"OPENAI_API_KEY": OPENAI, "RATEKEEPER_SECRET": gates.PEPPER}
        with serve(tmp_path, **environ) as served:
            before = [_chat(served, gates.SECRET).status_code for _ in range(2)]
            file.write_text(CONFIG.format(limit="1 reqest/day", **terms))
            served.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            broken = _chat(served, gates.SECRET).status_code
            file.write_text(CONFIG.format(limit="2 requests/day", **terms))
            served.process.send_signal(signal.SIGHUP)
            deadline, after = time.monotonic() + 5, 0
            while after != 200 and time.monotonic() < deadline:
                after = _chat(served, gates.SECRET).status_code
                time.sleep(0.05)
            _, _, err = served.end(signal.SIGTERM)

    assert "ratekeeper.yaml" == served.facts["config"]
    assert [200, 429, 429, 200] == [*before, broken, after]
    assert "ratekeeper.yaml:6: client_keys[0].limits[0]" in err


def _failed(folder: Path, *words: str, **environ: str) -> tuple[int, str]:
    done = subprocess.run(
        [*START, "serve", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        | environ,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_wrong_config_is_refused_with_line_and_near_match(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("providers: {}\nclient_kyes: []\n")

    code, err = _failed(tmp_path, "-c", "gate.yaml")

    assert 2 == code
    assert "gate.yaml:2: client_kyes: not a known name" in err
    assert "did you mean 'client_keys'?" in err


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    text = "providers: {openai: {accounts: [{api_key: 'env:MY_KEY', limits: [1 rpm]}]}}"
    (tmp_path / "gate.yaml").write_text(text)

    code, err = _failed(tmp_path, "-c", "gate.yaml")

    assert 2 == code
    assert "MY_KEY is not set" in err


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
        taken = served.facts["url"].removeprefix("http://")
        other = tmp_path / "other"
        other.mkdir()
        code, err = _failed(other, "--listen", taken, OPENAI_API_KEY=OPENAI)

        with serve(other, OPENAI_API_KEY=OPENAI) as later:
            secret = later.facts["client_key"]

    assert 2 == code
    assert taken.rpartition(":")[2] in err
    assert secret is not None  # it was not made for nobody to see


def test_two_gateways_do_not_share_one_file(tmp_path: Path) -> None:
    with serve(tmp_path, OPENAI_API_KEY=OPENAI):
        words = ("--listen", "127.0.0.1:0")
        code, err = _failed(tmp_path, *words, OPENAI_API_KEY=OPENAI)

    assert 2 == code
    assert "ratekeeper.db" in err


def _curl_line(folder: Path, **environ: str) -> list[str]:
    """Return the words of the line that is shown to try it, as a shell reads them."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    } | environ
    with subprocess.Popen(
        [*START, "serve", "--listen", "127.0.0.1:0"],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = next(one for one in process.stdout if one.startswith("  curl"))
            script = f"set -- {line.strip()}\nprintf '%s\\n' \"$@\""
            words = subprocess.check_output(
                ["sh", "-c", script], env=environ, text=True
            )
            headers = dict(
                word.split(": ", 1)
                for before, word in itertools.pairwise(words.splitlines())
                if before == "-H"
            )
            url, body = words.splitlines()[1], words.splitlines()[-1]
            status = httpx2.post(
                url, headers=headers, content=body, timeout=10
            ).status_code
        finally:
            process.terminate()
    return [str(status), *headers.values()]


def test_the_curl_line_takes_the_key_from_its_variable(tmp_path: Path) -> None:
    with simulate("openai", "--json") as provider:
        account = {"api_key": "env:OPENAI_API_KEY", "limits": ["500 rpm"]}
        said = {"base_url": provider.facts["base_url"], "accounts": [account]}
        config = json.dumps({"providers": {"openai": said}})  # JSON is YAML
        (tmp_path / "ratekeeper.yaml").write_text(config)
        with serve(tmp_path, OPENAI_API_KEY=OPENAI) as served:
            made = served.facts["client_key"]
            served.end(signal.SIGTERM)
        status, proof, _ = _curl_line(
            tmp_path, OPENAI_API_KEY=OPENAI, RATEKEEPER_KEY=made
        )

    assert ("200", f"Bearer {made}") == (status, proof)


def _greeting(folder: Path, **environ: str) -> str:
    """Return what is said at the start, to its last line."""
    kept = ("PATH", "PYTHONPATH")
    with subprocess.Popen(
        [*START, "serve", "--listen", "127.0.0.1:0"],
        cwd=folder,
        env={name: os.environ.get(name, "") for name in kept} | environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline()]
            while lines[-1].strip() or not _is_whole(lines):
                lines.append(process.stdout.readline())
        finally:
            process.terminate()
    return "".join(lines)


def _is_whole(lines: list[str]) -> bool:
    return any("api_key=" in line or "Name a provider" in line for line in lines)


def _in_a_terminal(folder: Path, **environ: str) -> str:
    """Return what is said at the start where a person sees it."""
    here, there = pty.openpty()
    kept = ("PATH", "PYTHONPATH")
    with subprocess.Popen(
        [*START, "serve", "--listen", "127.0.0.1:0"],
        cwd=folder,
        env={name: os.environ.get(name, "") for name in kept} | environ,
        stdout=there,
    ) as process:
        os.close(there)
        said = b""
        try:
            while b"api_key=" not in said:
                said += os.read(here, 4096)
        finally:
            process.terminate()
            os.close(here)
    return said.decode()


def test_a_key_that_costs_is_shown_to_a_person_and_to_no_file(tmp_path: Path) -> None:
    """The output of a service goes to a journal, of a container to its log."""
    kept = _greeting(tmp_path, OPENAI_API_KEY=OPENAI)
    seen = _in_a_terminal(tmp_path, OPENAI_API_KEY=OPENAI)

    assert "rk-" not in kept
    assert "export RATEKEEPER_KEY=$(ratekeeper keys create my-app --store" in kept
    assert "A client key, shown this once: rk-" in seen  # none was made before


KEYS = f'client_keys:\n  - {{name: app, hash: "{"0f" * 32}"}}\n'
PROVIDER = "providers: {openai: {accounts: [{limits: [5 rpm]}]}}\n"


@pytest.mark.parametrize(
    ("config", "environ", "shown", "hidden"),
    [
        ("", "GEMINI", ["gemini-2.5-flash", "genai.Client"], "gpt-4o"),
        ("", "GROQ", ["Try it, with a model of groq for MODEL:"], "gpt-4o"),
        ("", "ANTHROPIC", ["/anthropic/v1/messages"], "OpenAI("),
        ("auth: none\n", "", ["Name a provider in ratekeeper.yaml."], "curl"),
        (
            PROVIDER + KEYS,
            "OPENAI",
            ["those of ratekeeper.yaml: app.", "export RATEKEEPER_KEY=rk-…"],
            "keys create",
        ),
    ],
)
def test_the_greeting_fits_what_is_served(
    tmp_path: Path, config: str, environ: str, shown: list[str], hidden: str
) -> None:
    values = {
        "OPENAI": OPENAI,
        "GEMINI": "AIza" + "0123456789" * 4,
        "GROQ": "gsk_" + "0123456789" * 6,
        "ANTHROPIC": "sk-ant-" + "0123456789" * 10,
    }
    if config:
        (tmp_path / "ratekeeper.yaml").write_text(config)
    key = {f"{environ}_API_KEY": values[environ]} if environ else {}
    said = _greeting(tmp_path, **key)

    assert [] == [one for one in shown if one not in said]
    assert hidden not in said


def test_its_log_can_be_json_to_the_last_line(tmp_path: Path) -> None:
    (tmp_path / "ratekeeper.yaml").write_text("providers: {}\n")
    with serve(tmp_path, "--log", "json") as served:
        (tmp_path / "ratekeeper.yaml").write_text("providres: {}\n")
        served.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        _chat(served, "rk-nobody")
        _, _, err = served.end(signal.SIGTERM)
    lines = [json.loads(line) for line in err.splitlines()]

    assert ["ERROR", "INFO", "INFO"] == [line["level"] for line in lines]
    assert "did you mean 'providers'?" in lines[0]["message"]
    assert ("refusals", 1) == (lines[2]["event"], lines[2]["refused"])


@pytest.mark.parametrize("log", ["text", "json"])
def test_a_log_that_nobody_reads_holds_up_no_call_and_no_end(
    tmp_path: Path, log: str
) -> None:
    """A pipe holds 64 KiB, and a line for each call fills it in no time."""
    with serve(tmp_path, "--verbose", "--log", log, OPENAI_API_KEY=OPENAI) as served:
        url = f"{served.facts['url']}/v1/models"
        with httpx2.Client(headers={"x-api-key": "unknown"}, timeout=5) as client:
            statuses = {client.get(url).status_code for _ in range(1500)}
        served.process.send_signal(signal.SIGTERM)
        code = served.process.wait(10)

    assert {401} == statuses
    assert 0 == code


def test_all_of_the_log_is_written_where_somebody_reads(tmp_path: Path) -> None:
    with serve(tmp_path, "--verbose", OPENAI_API_KEY=OPENAI) as served:
        url = f"{served.facts['url']}/v1/models"
        with httpx2.Client(headers={"x-api-key": "unknown"}, timeout=5) as client:
            for _ in range(100):
                client.get(url)
        _, _, err = served.end(signal.SIGTERM)

    assert 100 == err.count(" request id=")
    assert "refused=100" in err


def test_a_load_balancer_has_notice_before_connections_are_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "ratekeeper.yaml").write_text(
        f"notice: 30s\n"
        f"providers: {{openai: {{accounts: [{{limits: [9 rpm]}}]}}}}\n"
        f"client_keys: [{{name: app, hash: '{gates.digest()}'}}]\n"
    )
    environ = {"OPENAI_API_KEY": OPENAI, "RATEKEEPER_SECRET": gates.PEPPER}
    with serve(tmp_path, **environ) as served:
        url = f"{served.facts['url']}/readyz"
        before = httpx2.get(url).status_code
        served.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 5
        while (after := httpx2.get(url).status_code) == 200:
            assert time.monotonic() < end
        alive = httpx2.get(url.replace("ready", "health")).status_code
        code, _, _ = served.end(signal.SIGTERM)

    assert (200, 503, 200) == (before, after, alive)
    assert 0 == code
