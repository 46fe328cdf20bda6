"""500 readers who stall cost memory that is bounded, and the others no time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import time
import urllib.parse
from pathlib import Path

import pytest

STALLED = 500
NORMAL = 20
MOST_EACH = 64 * 1024
MOST_BESIDE = 50 * 1024 * 1024
PROGRAM = textwrap.dedent("""
    from ratekeeper.gateway.listener import Bounds
    from ratekeeper.gateway.run import run
    from tests.gateway.stand_in import StandIn

    run(StandIn(), port=0, drain_s=0, bounds=Bounds(write_s=5),
        ready=lambda url: print(url, flush=True))
""")


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def connections(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def stall(where: tuple[str, int]) -> socket.socket:
    caller = socket.socket()
    caller.setblocking(False)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(caller, where)
    ask = b"GET /stream?size=4000&count=100000 HTTP/1.1\r\nHost: x\r\n\r\n"
    await loop.sock_sendall(caller, ask)
    return caller


async def gaps(where: tuple[str, int], seconds: float) -> list[float]:
    """Read a stream of a chunk each 20 ms; return how late its chunks were."""
    reader, writer = await asyncio.open_connection(*where)
    count = int(seconds * 50)
    writer.write(
        b"GET /stream?every_s=0.02&count=%d HTTP/1.1\r\nHost: x\r\n\r\n" % count
    )
    await reader.readuntil(b"\r\n\r\n")
    late = []
    before = time.monotonic()
    for _ in range(count):
        await reader.readuntil(b"xxxx\r\n")
        now = time.monotonic()
        late.append(now - before - 0.02)
        before = now
    writer.close()
    return sorted(late)


def p99(late: list[float]) -> float:
    return late[len(late) * 99 // 100]


async def play(where: tuple[str, int], pid: int) -> tuple[int, float]:
    """Return by how much the program has grown, and its others' chunks were later."""

    async def normal() -> float:
        many = await asyncio.gather(*(gaps(where, 3) for _ in range(NORMAL)))
        return p99(sorted(late for one in many for late in one))

    alone = await normal()
    before = resident(pid)
    with contextlib.ExitStack() as stack:
        for _ in range(STALLED):
            stack.enter_context(await stall(where))
        late = await normal()
        grown = resident(pid) - before
        await asyncio.sleep(6)  # the time they have to read on, and a look at them
        assert connections(pid) < 50
    return grown, late - alone


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_stalled_readers_are_bounded_cut_and_in_nobodys_way() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as gateway:
        assert gateway.stdout is not None
        url = urllib.parse.urlsplit(gateway.stdout.readline().strip())
        where = (url.hostname or "", url.port or 0)
        try:
            grown, added = asyncio.run(play(where, gateway.pid))
        finally:
            gateway.terminate()

    assert grown <= STALLED * MOST_EACH + MOST_BESIDE
    assert added <= 0.01
