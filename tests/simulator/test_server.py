"""The simulator on a real socket: what a wire does that a function call does not."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ratekeeper.errors import ConfigError
from ratekeeper.simulator import server
from ratekeeper.simulator.cues import FaultPlan
from ratekeeper.simulator.exchange import Intake
from ratekeeper.simulator.server import Simulator, serving
from ratekeeper.testing import ManualClock
from tests.simulator.asking import KEY, ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLENTY = ("100k rpm", "100M tpm")
BODY = {"model": "m", "messages": ROLES, "max_tokens": 20}


@contextlib.contextmanager
def client(simulator: Simulator) -> Iterator[httpx2.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with (
        serving(simulator) as url,
        httpx2.Client(base_url=url, headers=headers, timeout=10) as one,
    ):
        yield one


def chat(one: httpx2.Client, cue: str = "", **fields: Any) -> httpx2.Response:
    headers = {"x-simulate": cue} if cue else {}
    return one.post("/chat/completions", json={**BODY, **fields}, headers=headers)


def eventually(true: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Look again and again, with a bound: for what another thread is about to do."""
    end = time.monotonic() + within_s
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    return true()


def test_forty_threads_at_a_limit_of_ten_are_answered_exactly_ten_times() -> None:
    simulator = Simulator("openai", ["10 rpm"], clock=ManualClock())
    with client(simulator) as one, concurrent.futures.ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(lambda _: chat(one).status_code, range(40)))

    assert 10 == statuses.count(200)
    assert 30 == statuses.count(429)
    assert {"200": 10, "429": 30} == simulator.stats["by_status"]
    assert 30 * 9 == simulator.stats["tokens_in_vain"]


def test_a_connection_is_kept_and_counted_once() -> None:
    simulator = Simulator("openai", PLENTY)
    with client(simulator) as one:
        for _ in range(20):
            chat(one)

    assert 1 == simulator.stats["connections"]
    assert 20 == simulator.stats["requests"]


def test_stats_can_be_read_and_reset_over_http_and_limits_stay() -> None:
    simulator = Simulator("openai", ["1 rpm"], clock=ManualClock())
    with client(simulator) as one:
        host = str(one.base_url).removesuffix("/v1/")
        chat(one)
        before = one.get(f"{host}/_stats").json()
        reset = one.post(f"{host}/_stats/reset").json()
        wrong = one.delete(f"{host}/_stats").status_code
        refused = chat(one).status_code
        after = one.get(f"{host}/_stats").json()

    assert {"200": 1} == before["by_status"]
    served = {n: before[f"{n}_served"] for n in ("input_tokens", "output_tokens")}
    assert {KEY: {"requests": 1, "200": 1, **served}} == before["by_key"]
    assert served["output_tokens"] > 0
    assert {"reset": True} == reset
    assert 405 == wrong
    assert 429 == refused
    assert {"429": 1} == after["by_status"]


@pytest.mark.parametrize("key", ["", "Bearer", "Basic abc", "Bearer sk-wrong"])
def test_a_missing_or_wrong_key_is_a_401_and_costs_nothing(key: str) -> None:
    simulator = Simulator("openai", ["1 rpm"], keys=[KEY])
    with client(simulator) as one:
        refused = one.post(
            "/chat/completions", json=BODY, headers={"authorization": key}
        )
        answered = chat(one)

    assert 401 == refused.status_code
    assert "invalid_api_key" == refused.json()["error"]["code"]
    assert 200 == answered.status_code


def test_dropped_on_cue_a_client_gets_no_byte() -> None:
    simulator = Simulator("openai", PLENTY)
    with client(simulator) as one, pytest.raises(httpx2.RemoteProtocolError):
        chat(one, "drop")

    assert 1 == simulator.stats["cut"]
    assert {} == simulator.stats["by_status"]


def test_a_plain_answer_cut_on_cue_ends_before_its_length() -> None:
    simulator = Simulator("openai", PLENTY)
    with client(simulator) as one, pytest.raises(httpx2.RemoteProtocolError):
        chat(one, "cut=1")

    assert 1 == simulator.stats["cut"]


@pytest.mark.parametrize("chunks", [0, 3])
def test_a_stream_cut_on_cue_ends_after_so_many_pieces_of_text(chunks: int) -> None:
    simulator = Simulator("openai", PLENTY)
    read: list[bytes] = []
    with (
        client(simulator) as one,
        one.stream(
            "POST",
            "/chat/completions",
            json={**BODY, "stream": True},
            headers={"x-simulate": f"cut={chunks}, output=20"},
        ) as response,
        pytest.raises(httpx2.RemoteProtocolError),
    ):
        read.extend(response.iter_bytes())
    got = b"".join(read)

    assert got.count(b'"content":"') - got.count(b'"content":""') == chunks
    assert b"[DONE]" not in got
    assert simulator.stats["output_tokens_served"] == chunks


def test_a_slow_stream_takes_its_time_between_pieces() -> None:
    simulator = Simulator("openai", PLENTY)
    with client(simulator) as one:
        began = time.monotonic()
        chat(one, "latency=0.1, stall=0.1, pace=0.02, output=5", stream=True)
        took = time.monotonic() - began

    assert took >= 0.1 + 0.1 + 5 * 0.02


def test_latency_comes_before_the_answer_and_jitter_adds_to_it() -> None:
    simulator = Simulator("openai", PLENTY, latency_s=0.1, jitter_s=0.05)
    with client(simulator) as one:
        began = time.monotonic()
        for _ in range(3):
            chat(one)
        took = time.monotonic() - began

    assert took >= 0.3


def test_signs_of_life_come_before_an_answer_that_still_parses() -> None:
    simulator = Simulator("openai", PLENTY)
    with client(simulator) as one:
        plain = chat(one, "keep-alive=3")
        stream = chat(one, "keep-alive=3, output=1", stream=True)

    assert plain.text.startswith("\n\n\n{")
    assert "chat.completion" == plain.json()["object"]
    assert stream.text.startswith(": keep-alive\n\n" * 3)


def leave(url: str, cue: str, *, stream: bool, after: bytes = b"") -> None:
    """Send a call and hang up, after reading up to some bytes."""
    host, _, port = url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    body = json.dumps({**BODY, "stream": stream}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}"
        f"\r\nx-simulate: {cue}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=5) as wire:
        wire.sendall(head.encode() + body)
        got = b""
        while after not in got:
            got += wire.recv(65536)


def test_a_client_that_leaves_before_its_answer_frees_its_slot() -> None:
    simulator = Simulator("openai", ["1 concurrent"])
    with serving(simulator) as url:
        leave(url, "latency=60", stream=False)
        freed = eventually(lambda: simulator.stats["client_closed"] == 1)
        answered = httpx2.post(
            f"{url}/chat/completions",
            json=BODY,
            headers={"authorization": f"Bearer {KEY}"},
        )

    assert freed
    assert 200 == answered.status_code
    assert 0 == simulator.stats["in_flight"]


def test_a_client_that_leaves_mid_stream_pays_for_what_has_flowed() -> None:
    simulator = Simulator("holysheep", ["1 concurrent", "100k tpm"])
    with serving(simulator) as url:
        cue = "pace=0.02, output=3000"
        leave(url, cue, stream=True, after=b'"content":"')
        freed = eventually(lambda: simulator.stats["client_closed"] == 1)
        stats = simulator.stats

    assert freed
    assert 0 == stats["in_flight"]
    assert 0 < stats["output_tokens_served"] < 20


def test_a_body_said_to_be_too_large_is_refused_before_it_is_sent() -> None:
    simulator = Simulator("openai", PLENTY, most_body=1000)
    with serving(simulator) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/v1").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5) as wire:
            wire.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                b"authorization: Bearer k\r\ncontent-length: 999999999999\r\n\r\n"
            )
            got = wire.recv(65536)

    assert got.startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_read_no_further_than_the_cap() -> None:
    simulator = Simulator("openai", PLENTY, most_body=1000)
    with client(simulator) as one:
        try:
            response = one.post("/chat/completions", content=iter([b"x" * 600] * 1000))
            status = response.status_code
        except httpx2.WriteError:  # the server had hung up while we were sending
            status = 413

    assert 413 == status
    assert {"413": 1} == simulator.stats["by_status"]


def test_bodies_that_arrive_together_have_a_bound_and_room_comes_back() -> None:
    simulator = Simulator("openai", PLENTY)
    simulator._intake = Intake(most=1000, most_together=1500)
    with client(simulator) as one:
        at = (one.base_url.host, one.base_url.port or 0)
        with socket.create_connection(at, timeout=5) as wire:
            wire.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: "
                b"Bearer k\r\ncontent-length: 1000\r\n\r\n" + b" " * 900
            )
            arrived = eventually(lambda: simulator._intake._room == 600)
            crowded = chat(one, messages=[{"role": "user", "content": "x" * 700}])
        left = eventually(lambda: simulator._intake._room == 1500)
        served = chat(one, messages=[{"role": "user", "content": "x" * 700}])

    assert arrived
    assert 503 == crowded.status_code
    assert left
    assert 200 == served.status_code


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        b"GET\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"POST /v1/chat/completions HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
        b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked"
        b"\r\nauthorization: Bearer k\r\n\r\nZZZ\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET //evil HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    ],
)
def test_garbage_is_answered_with_an_error_and_the_next_call_is_served(
    garbage: bytes,
) -> None:
    simulator = Simulator("openai", PLENTY)
    with client(simulator) as one:
        at = (one.base_url.host, one.base_url.port or 0)
        with socket.create_connection(at, timeout=5) as wire:
            wire.sendall(garbage)
            wire.shutdown(socket.SHUT_WR)
            got = wire.recv(65536)
        served = chat(one)

    assert got == b"" or got.startswith(b"HTTP/1.1 4")
    assert 200 == served.status_code


def test_a_body_that_stops_half_way_is_given_up_when_the_client_leaves() -> None:
    simulator = Simulator("openai", PLENTY)
    with client(simulator) as one:
        at = (one.base_url.host, one.base_url.port or 0)
        with socket.create_connection(at, timeout=5) as wire:
            wire.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: "
                b"Bearer k\r\ncontent-length: 100\r\n\r\n{"
            )
        left = eventually(lambda: simulator.stats["client_closed"] == 1)

    assert left


def test_a_plan_of_faults_strikes_by_number() -> None:
    plan = FaultPlan.parse(["status=529 # 2"])
    simulator = Simulator("openai", PLENTY, faults=plan)
    with client(simulator) as one:
        statuses = [chat(one).status_code for _ in range(3)]

    assert [200, 529, 200] == statuses


def test_repeated_refusals_bring_a_ban_of_hours_for_everybody() -> None:
    clock = ManualClock()
    simulator = Simulator("openai", ["1 rpm"], ban_after=3, ban_s=4 * 3600, clock=clock)
    with client(simulator) as one:
        statuses = [chat(one).status_code for _ in range(4)]
        clock.advance(120)  # the limit would let it in again
        banned = one.post(
            "/chat/completions", json=BODY, headers={"authorization": "Bearer sk-other"}
        )
        clock.advance(4 * 3600)
        after = chat(one)

    assert [200, 429, 429, 429] == statuses
    assert 429 == banned.status_code
    assert "temporarily_banned" == banned.json()["error"]["code"]
    assert banned.headers["retry-after"] == str(4 * 3600 - 120)
    assert 200 == after.status_code
    assert (1, 1) == (simulator.stats["bans"], simulator.stats["banned"])


def test_a_fault_of_the_server_counts_against_the_limit_and_one_of_the_key_does_not() -> (
    None
):
    simulator = Simulator("openai", ["2 rpm"], clock=ManualClock())
    with client(simulator) as one:
        cues = ("status=401", "status=500", "", "")
        statuses = [chat(one, cue).status_code for cue in cues]

    assert [401, 500, 200, 429] == statuses


def test_a_port_that_is_taken_is_a_config_error_that_names_it() -> None:
    with serving(Simulator()) as url:
        port = int(url.removesuffix("/v1").rpartition(":")[2])

        with (
            pytest.raises(ConfigError, match=f"127.0.0.1 port {port}"),
            serving(Simulator(), port=port),
        ):
            pass


@pytest.mark.parametrize("host", ["256.0.0.1", "no.such.host.invalid"])
def test_a_host_that_cannot_be_listened_on_is_a_config_error(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen"), serving(Simulator(), host):
        pass


def test_stopping_cuts_what_is_open_and_leaves_nothing_behind() -> None:
    simulator = Simulator("openai", PLENTY)
    threads = threading.active_count()
    with serving(simulator) as url:
        host, _, port = url.removeprefix("http://").removesuffix("/v1").rpartition(":")
        wire = socket.create_connection((host, int(port)), timeout=5)
        body = json.dumps(BODY).encode()
        wire.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-simulate: latency=60"
            b"\r\nauthorization: Bearer k\r\ncontent-length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        assert eventually(lambda: simulator.stats["in_flight"] == 1)
        began = time.monotonic()
    took = time.monotonic() - began
    with wire, contextlib.suppress(ConnectionError):
        wire.recv(65536)

    assert took < 5
    assert 0 == simulator.stats["in_flight"]
    assert threads == threading.active_count()
    with pytest.raises(ConnectionError):
        socket.create_connection((host, int(port)), timeout=5)


@pytest.mark.parametrize(
    "options",
    [
        {"latency_s": -1},
        {"latency_s": float("nan")},
        {"jitter_s": float("inf")},
        {"ban_s": float("nan")},
        {"ban_s": 0},
        {"ban_after": 0},
        {"limits": ["500 rmp"]},
    ],
)
def test_an_option_that_makes_no_sense_is_a_config_error(
    options: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError):
        Simulator("openai", **options)


WITHOUT_EXTRAS = """
import sys
sys.modules["uvloop"] = sys.modules["httptools"] = None
import httpx2
from ratekeeper.simulator.server import Simulator, serving
with serving(Simulator()) as url:
    def ask(cue):
        return httpx2.post(
            f"{url}/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": "x"}]},
            headers={"authorization": "Bearer k", "x-simulate": cue},
        )
    print(ask("output=1").status_code)
    try:
        ask("drop")
    except httpx2.RemoteProtocolError:
        print("dropped")
"""


def test_it_serves_with_nothing_but_uvicorn_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )

    assert (["200", "dropped"], "") == (done.stdout.split(), done.stderr)


HEAD = (
    f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    "x-simulate: latency={}\r\n\r\n"
)


@pytest.mark.parametrize("protocol", [HttpToolsProtocol, H11Protocol])
@pytest.mark.parametrize(
    ("whole", "begun"),
    [("", ""), ("", "GET /v1/models HT"), (HEAD.format(0), "GET /v1/models HT")],
    ids=["silent", "slow", "slow in its second request"],
)
def test_who_never_finishes_a_head_is_hung_up_on(
    whole: str, begun: str, protocol: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "AutoHTTPProtocol", protocol)
    monkeypatch.setattr(server, "_HEAD_S", 0.3)
    with serving(Simulator()) as url, _wire(url) as wire:
        got = b""
        if whole:
            wire.sendall(whole.encode())
            while not got.endswith(b"]}"):
                got += wire.recv(65_536)
        wire.sendall(begun.encode())
        try:
            more = wire.recv(65_536)  # a time-out of the test's own fails it
        except ConnectionResetError:
            more = b""

    assert b"" == more
    assert bool(whole) == got.startswith(b"HTTP/1.1 200")


def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEAD_S", 0.2)
    with serving(Simulator()) as url, _wire(url) as wire:
        wire.sendall(HEAD.format(0.5).encode())

        assert wire.recv(65_536).startswith(b"HTTP/1.1 200")


def _wire(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    return socket.create_connection((host, int(port)), timeout=5)
