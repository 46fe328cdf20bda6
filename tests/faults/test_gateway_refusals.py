"""A refusal that headers can decide: it costs next to nothing, and reads no body."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from tests.cli.running import serve
from tests.faults.sizes import say, size
from tests.gateway import gates

MANY = size(500, 5000)
LOOKS = 5  # of which the best counts: other programs slow every one of them
MOST_US = 100
GIGABYTE = 1_000_000_000
KERNELS = 8 << 20  # what both sides of a connection may have under way
CONFIG = """\
providers:
  openai:
    base_url: http://127.0.0.1:1/v1
    accounts: [{{api_key: "env:UPSTREAM_KEY", limits: [1M rpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [1M rpm], max_wait: 0s}}
"""
STRANGER = "rk-" + "z" * 43


def head(key: str, length: int) -> bytes:
    return (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"content-length: {length}\r\n\r\n"
    ).encode()


def used_us(pid: int) -> int:
    """Return how much of a processor a program has had, the kernel's part apart."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) * 10_000  # it is counted in hundredths of a second


def ask(caller: socket.socket, key: str, length: int) -> bytes:
    """Send a head and return the whole answer."""
    caller.sendall(head(key, length))
    seen = b""
    while not seen.endswith(b"}}"):
        seen += caller.recv(4096)
    return seen


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_an_unknown_key_takes_a_tenth_of_a_millisecond(tmp_path: Path) -> None:
    text = CONFIG.format(hash=gates.digest())
    (tmp_path / "ratekeeper.yaml").write_text(text)
    with serve(tmp_path, **gates.ENVIRON) as served:
        host, _, port = served.facts["url"].removeprefix("http://").partition(":")
        took = []
        with socket.create_connection((host, int(port))) as caller:
            for _ in range(LOOKS):
                before = used_us(served.process.pid)
                for _ in range(MANY):
                    assert ask(caller, STRANGER, 0).startswith(b"HTTP/1.1 401 ")
                took.append((used_us(served.process.pid) - before) / MANY)
    say(f"an unknown key is refused in {min(took):.0f} us")

    assert min(took) <= MOST_US


@pytest.mark.parametrize(
    ("key", "told"), [(STRANGER, b"HTTP/1.1 401 "), (gates.SECRET, b"HTTP/1.1 413 ")]
)
def test_nothing_is_read_of_a_gigabyte(tmp_path: Path, key: str, told: bytes) -> None:
    config = gates.config(tmp_path, {"openai": gates.account("http://127.0.0.1:1/v1")})
    sent = 0
    with gates.gate(config) as it:
        host, _, port = it.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as caller:
            answer = ask(caller, key, GIGABYTE)
            caller.settimeout(0.5)
            with contextlib.suppress(OSError):
                while sent < 64 << 20:
                    sent += caller.send(b"x" * (1 << 16))
        held = it.gateway.held.bytes

    assert answer.startswith(told)
    assert sent <= KERNELS
    assert 0 == held
