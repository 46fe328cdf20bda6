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
from pathlib import Path

import pytest

from tests.faults import played
from tests.faults.sizes import allow_files, say, size
from tests.gateway import gates

STALLED = 500
NORMAL = 20
SECONDS = size(2, 20)  # of each measurement
LOOKS = 5  # a machine that does something else beside makes them late as well
WRITE_S = size(10, 30)  # that a reader may take to read on
MOST_EACH = 64 * 1024
MOST_BESIDE = 50 * 1024 * 1024
MOST_LATE_S = 0.01
EVERY_S = 0.02
CONFIG = """\
listen: 127.0.0.1:0
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:UPSTREAM_KEY", limits: [1M rpm, 10B tpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [1M rpm, 1B tpm, $1000/day, 2000 concurrent]}}
prices: {{gpt-4o: {{input: 1, output: 2, max_output: 400}}}}
"""
PROGRAM = textwrap.dedent("""
    import pathlib, sys
    from ratekeeper.config.load import load
    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.listener import Bounds
    from ratekeeper.gateway.run import run

    run(Gateway(load(pathlib.Path("ratekeeper.yaml"))), port=0, drain_s=0,
        bounds=Bounds(write_s=float(sys.argv[1])),
        ready=lambda url: print(url, flush=True))
""")


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def stall(url: str, name: str) -> socket.socket:
    """Ask for a flood, and read nothing of it."""
    caller = socket.socket()
    caller.setblocking(False)
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(caller, (host, int(port)))
    await loop.sock_sendall(caller, played.request(name, "flood", stream=True))
    return caller


async def gaps(url: str, name: str) -> list[float]:
    """Read a stream of an event each 20 ms; return how late they were."""
    count = int(SECONDS / EVERY_S)
    reader, writer = await played.dial(url)
    writer.write(played.request(name, f"stream {count} {EVERY_S}", stream=True))
    await reader.readuntil(b"\r\n\r\n")
    late = []
    before = time.monotonic()
    for _ in range(count):
        await reader.readuntil(b"}\n\n")
        now = time.monotonic()
        late.append(now - before - EVERY_S)
        before = now
    writer.close()
    return late


async def normal(url: str, name: str) -> float:
    """Return how late one event in a hundred is."""
    many = await asyncio.gather(*(gaps(url, f"{name} {n}") for n in range(NORMAL)))
    late = sorted(late for one in many for late in one)
    return late[len(late) * 99 // 100]


async def play(url: str, provider: played.Provider, pid: int) -> tuple[int, float, int]:
    """Return by how much it has grown, others' events were later, and who is left."""
    alone = await normal(url, "alone")
    before, late = resident(pid), 1.0
    with contextlib.ExitStack() as stack:
        for n in range(STALLED):
            stack.enter_context(await stall(url, f"stalled {n}"))
        for look in range(LOOKS):
            late = min(late, await normal(url, f"beside {look}") - alone)
            if late <= MOST_LATE_S:
                break
        grown = resident(pid) - before
        assert STALLED == sum(name.startswith("stalled") for name in provider.came)

        def left() -> int:
            return STALLED - sum(name.startswith("stalled") for name in provider.lost)

        await played.until(lambda: not left(), WRITE_S + 3)
    say(
        f"{STALLED} stalled: {grown / STALLED / 1024:.0f} KiB each; p99 of the others "
        f"{alone * 1000:.1f} ms alone, {late * 1000:+.1f} ms beside them"
    )
    return grown, late, left()


@pytest.mark.slow
@pytest.mark.timeout(size(40, 150))
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_stalled_readers_are_bounded_cut_and_in_nobodys_way(tmp_path: Path) -> None:
    allow_files()

    async def scenario() -> tuple[int, float, int]:
        async with played.provider() as provider:
            text = CONFIG.format(url=provider.url, hash=gates.digest())
            (tmp_path / "ratekeeper.yaml").write_text(text)
            environ = {**os.environ, **gates.ENVIRON}
            with subprocess.Popen(  # noqa: ASYNC220 - it ends at once
                [sys.executable, "-c", PROGRAM, str(WRITE_S)],
                stdout=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                env={**environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            ) as gateway:
                assert gateway.stdout is not None
                try:
                    url = gateway.stdout.readline().strip()
                    return await play(url, provider, gateway.pid)
                finally:
                    gateway.terminate()

    grown, added, left = asyncio.run(scenario())

    assert grown <= STALLED * MOST_EACH + MOST_BESIDE
    assert added <= MOST_LATE_S
    assert 0 == left
