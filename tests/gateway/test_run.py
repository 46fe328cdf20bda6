"""A gateway begins, loads its config anew, and ends without cutting a stream."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ratekeeper.errors import ConfigError
from ratekeeper.gateway.run import serving
from tests.gateway.stand_in import Caller, StandIn, ends_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GET = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
STREAM = b"GET /stream?every_s=0.1&count=20 HTTP/1.1\r\nHost: x\r\n\r\n"
GOOD = "listen: 127.0.0.1:8080\n"
PROGRAM = textwrap.dedent("""
    import logging, pathlib, sys
    from ratekeeper.config.load import load
    from ratekeeper.gateway.run import run
    from tests.gateway.stand_in import StandIn

    class Told(StandIn):
        def reload(self, config):
            print("reloaded", config.listen, flush=True)

        async def close(self):
            print("closed", flush=True)

    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    run(Told(), port=0, drain_s=float(sys.argv[2]), notice_s=float(sys.argv[3]),
        config_path=pathlib.Path(sys.argv[1]), load=load,
        ready=lambda url: print(url, flush=True))
""")

HEEDED = textwrap.dedent("""
    import gc, os, signal
    from ratekeeper.gateway.run import run
    from tests.gateway.stand_in import StandIn

    def ready(url):
        print(gc.get_freeze_count() > 10_000, gc.get_threshold()[0], flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    run(StandIn(), port=0, ready=ready)
""")


class Running:
    """A gateway in a process of its own."""

    def __init__(self, config: Path, *, drain_s: float, notice_s: float) -> None:
        command = [sys.executable, "-c", PROGRAM, str(config), str(drain_s)]
        self.process = subprocess.Popen(
            [*command, str(notice_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.url = self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=10)
        return self.process.returncode, said


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gate.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def start(config: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(drain_s: float = 10.0, notice_s: float = 0.0) -> Running:
        running.append(Running(config, drain_s=drain_s, notice_s=notice_s))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.communicate()


def read_streams(url: str, count: int) -> tuple[list[bytes], threading.Thread]:
    """Open streams; the thread ends when they have."""
    callers = [Caller(url).send(STREAM) for _ in range(count)]
    for caller in callers:
        caller.read(lambda data: b"xxx" in data)
    ends: list[bytes] = []

    def read_all() -> None:
        for caller in callers:
            with caller:
                ends.append(caller.read(ends_with(b"end\r\n0\r\n\r\n")))

    thread = threading.Thread(target=read_all)
    thread.start()
    return ends, thread


def test_streams_end_whole_after_a_signal(start: Callable[..., Running]) -> None:
    gateway = start()
    ends, thread = read_streams(gateway.url, 100)
    gateway.process.send_signal(signal.SIGTERM)
    thread.join()
    code, said = gateway.end()

    assert [True] * 100 == [end.endswith(b"end\r\n0\r\n\r\n") for end in ends]
    assert (0, "closed\n") == (code, said)


def test_it_is_not_ready_as_soon_as_it_is_told_to_stop(
    start: Callable[..., Running],
) -> None:
    gateway = start(notice_s=5)
    before = status(gateway.url + "/readyz")
    gateway.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 1
    while (after := status(gateway.url + "/readyz")) == 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)

    assert (200, 503) == (before, after)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_no_connection_is_accepted_while_it_drains(
    start: Callable[..., Running],
) -> None:
    gateway = start()
    _, thread = read_streams(gateway.url, 1)
    with Caller(gateway.url) as idle:
        idle.send(GET).read(ends_with(b"/next "))
        gateway.process.send_signal(signal.SIGTERM)
        left = idle.read()
    port = int(gateway.url.rpartition(":")[2])
    with socket.socket() as late, pytest.raises(ConnectionRefusedError):
        late.connect(("127.0.0.1", port))
    thread.join()

    assert b"" == left
    assert 0 == gateway.end()[0]


def test_what_is_not_answered_in_time_is_cut_and_counted(
    start: Callable[..., Running],
) -> None:
    gateway = start(drain_s=0.3)
    ends, thread = read_streams(gateway.url, 3)
    gateway.process.send_signal(signal.SIGTERM)
    thread.join()
    code, said = gateway.end()

    assert [False] * 3 == [end.endswith(b"end\r\n0\r\n\r\n") for end in ends]
    assert (0, "3 calls were not answered in time and are cut\nclosed\n") == (
        code,
        said,
    )


def test_a_second_signal_cuts_at_once(start: Callable[..., Running]) -> None:
    gateway = start(drain_s=60)
    _, thread = read_streams(gateway.url, 3)
    began = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    gateway.process.send_signal(signal.SIGINT)
    thread.join()
    code, said = gateway.end()

    assert time.monotonic() - began < 1.5
    assert 0 == code
    assert said.startswith("3 calls")


def test_a_broken_config_changes_nothing_and_is_told_in_full(
    start: Callable[..., Running], config: Path
) -> None:
    gateway = start()
    config.write_text("lisen: 127.0.0.1:8080\n")
    gateway.process.send_signal(signal.SIGHUP)
    told = gateway.line(), gateway.line()
    answer = status(gateway.url + "/next")
    config.write_text(GOOD.replace("8080", "8081"))
    gateway.process.send_signal(signal.SIGHUP)
    reloaded = gateway.line()

    assert "the config is not changed, because it is wrong:" == told[0]
    assert told[1].startswith("gate.yaml:1: ")
    assert "listen" in told[1]
    assert 200 == answer
    assert "reloaded 127.0.0.1:8081" == reloaded


def test_a_config_that_was_replaced_is_loaded_without_a_signal(
    start: Callable[..., Running], config: Path
) -> None:
    gateway = start()
    other = config.with_suffix(".new")
    other.write_text(GOOD.replace("8080", "8082"))
    other.replace(config)

    assert "reloaded 127.0.0.1:8082" == gateway.line()


def test_it_is_up_within_a_second(start: Callable[..., Running]) -> None:
    began = time.monotonic()
    gateway = start()

    assert 200 == status(gateway.url + "/next")
    assert time.monotonic() - began < 3  # a second, on a machine that does nothing else


def test_what_is_there_for_good_is_not_looked_at_for_garbage() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HEEDED],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert "True 10000\n" == ended.stdout


def test_a_port_that_is_taken_says_what_to_do() -> None:
    with socket.socket() as taken, contextlib.ExitStack() as stack:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as told:
            stack.enter_context(serving(StandIn(), port=port))

    assert (
        f"cannot listen on 127.0.0.1 port {port}: Address already in use; name another "
        "with `listen:` or --listen, port 0 for a free one"
    ) == str(told.value)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere any port may be taken")
def test_a_port_that_takes_rights_says_which() -> None:
    program = textwrap.dedent("""
        import os, sys
        from ratekeeper.gateway.run import serving
        from tests.gateway.stand_in import StandIn

        if os.geteuid() == 0:
            os.setuid(65534)
        with serving(StandIn(), port=443):
            pass
    """)
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 443:
        pytest.skip("port 443 is anybody's here")
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )

    assert "Permission denied; ports below 1024 are root's, or need" in ended.stderr


def test_an_end_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with serving(StandIn(), drain_s=5):
        pass
    with serving(StandIn(), drain_s=5) as url:
        _, thread = read_streams(url, 2)
    thread.join()

    assert [
        "told to end, and no answer is open",
        "told to end: 2 answers are open and have up to 5 s; a second signal cuts what "
        "is left",
    ] == caplog.messages


def test_a_gateway_is_closed_when_it_ends() -> None:
    app = StandIn()
    with serving(app) as url, Caller(url) as caller:
        caller.send(GET).read(ends_with(b"/next "))

    assert app.is_closed
    assert app.is_draining
