"""500 readers who stall cost memory that is bounded, and the others no time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import played
from tests.faults.sizes import allow_files, say, size
from tests.gateway import gates

STALLED = 500
NORMAL = 20
SECONDS = size(1, 5)  # of each look
LOOKS = 5  # at both gateways at once: what else the machine does makes both late
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


@dataclasses.dataclass(frozen=True, slots=True)
class Running:
    """A gateway in a process of its own."""

    process: subprocess.Popen[str]
    url: str


@contextlib.contextmanager
def running(folder: Path, upstream: str) -> Iterator[Running]:
    """Run one, with its file in a folder of its own."""
    folder.mkdir()
    text = CONFIG.format(url=upstream, hash=gates.digest())
    (folder / "ratekeeper.yaml").write_text(text)
    environ = {**os.environ, **gates.ENVIRON}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(WRITE_S)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        try:
            yield Running(process, process.stdout.readline().strip())
        finally:
            process.terminate()


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


async def at_rest(provider: played.Provider) -> None:
    """Wait until nothing more of what nobody reads can be written."""
    seen = -1
    while seen != provider.flooded or not seen:
        seen = provider.flooded
        await asyncio.sleep(0.2)


async def play(
    alone: Running, crowded: Running, provider: played.Provider
) -> tuple[int, float, int]:
    """Return by how much it has grown, others' events were later, and who is left.

    Later than those of another gateway at the same time, where nobody stalls.
    """
    pid = crowded.process.pid
    await normal(crowded.url, "warm")
    before, late, usual = resident(pid), [], 0.0
    with contextlib.ExitStack() as stack:
        for n in range(STALLED):
            stack.enter_context(await stall(crowded.url, f"stalled {n}"))
        await at_rest(provider)
        grown = resident(pid) - before
        for look in range(LOOKS):
            usual, beside = await asyncio.gather(
                normal(alone.url, f"alone {look}"),
                normal(crowded.url, f"beside {look}"),
            )
            late.append(beside - usual)
        grown = max(grown, resident(pid) - before)
        assert STALLED == sum(name.startswith("stalled") for name in provider.came)

        def left() -> int:
            return STALLED - sum(name.startswith("stalled") for name in provider.lost)

        await played.until(lambda: not left(), WRITE_S + 3)
    added = statistics.median(late)
    say(
        f"{STALLED} stalled: {grown / STALLED / 1024:.0f} KiB each; p99 of the others "
        f"{usual * 1000:.1f} ms alone, {added * 1000:+.1f} ms beside them"
    )
    return grown, added, left()


@pytest.mark.slow
@pytest.mark.timeout(size(40, 150))
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_stalled_readers_are_bounded_cut_and_in_nobodys_way(tmp_path: Path) -> None:
    allow_files()

    async def scenario() -> tuple[int, float, int]:
        async with played.provider() as provider:
            with (
                running(tmp_path / "alone", provider.url) as alone,
                running(tmp_path / "crowded", provider.url) as crowded,
            ):
                return await play(alone, crowded, provider)

    grown, added, left = asyncio.run(scenario())

    assert grown <= STALLED * MOST_EACH + MOST_BESIDE
    assert added <= MOST_LATE_S
    assert 0 == left
