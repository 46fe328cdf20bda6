"""A broken config, then the end, amid a thousand streams: nobody sees any of it."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx2
import pytest

from tests.cli.running import Served, serve
from tests.faults import played
from tests.faults.sizes import allow_files, say, size
from tests.gateway import gates

STREAMS = size(300, 1000)
EVENTS = 12
EVERY_S = size(1, 5) / 2.5  # each stream lasts five seconds, or 24
CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:UPSTREAM_KEY", limits: [1M rpm, 1B tpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [{limit}]}}
"""


async def whole(url: str, name: str) -> bool:
    """Read a stream to its end; say whether all of it came."""
    reader, writer = await played.dial(url)
    writer.write(played.request(name, f"stream {EVENTS} {EVERY_S}", stream=True))
    seen = b""
    while not seen.endswith(played.LAST):
        part = await reader.read(1 << 16)
        if not part:
            break
        seen += part
    writer.close()
    words = seen.count(b"word ")
    return seen.endswith(played.DONE + b"\r\n" + played.LAST) and words == EVENTS


async def ready(url: str) -> int:
    async with httpx2.AsyncClient() as client:
        return (await client.get(f"{url}/readyz")).status_code


async def not_ready(url: str) -> float:
    """Return how long it was still ready: gone is not ready either."""
    begun = time.monotonic()
    try:
        while await ready(url) == 200:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.02)
    except httpx2.HTTPError:
        pass
    return time.monotonic() - begun


def break_it(file: Path) -> None:
    file.write_text(file.read_text().replace("[1M rpm]}\n", "[1M rpn]}\n"))


async def play(
    provider: played.Provider, served: Served, file: Path
) -> tuple[list[bool], int, float]:
    url = served.facts["url"]
    streams = [asyncio.create_task(whole(url, str(n))) for n in range(STREAMS)]
    await played.until(lambda: len(provider.came) == STREAMS, 10)
    break_it(file)
    served.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(1.0)
    between = await ready(url)
    served.process.send_signal(signal.SIGTERM)
    took = await not_ready(url)
    assert not any(stream.done() for stream in streams)
    return await asyncio.gather(*streams), between, took


@pytest.mark.slow
@pytest.mark.timeout(size(30, 120))
def test_no_stream_is_cut_by_a_broken_config_nor_by_the_end(tmp_path: Path) -> None:
    allow_files()
    file = tmp_path / "ratekeeper.yaml"

    async def scenario() -> tuple[list[bool], int, float]:
        async with played.provider() as provider:
            terms = {"url": provider.url, "hash": gates.digest(), "limit": "1M rpm"}
            file.write_text(CONFIG.format(**terms))
            with serve(tmp_path, **gates.ENVIRON) as served:
                found = await play(provider, served, file)
                _, said = await asyncio.to_thread(
                    served.process.communicate, timeout=10
                )
                ends.append((served.process.returncode, said))
                return found

    ends: list[tuple[int, str]] = []
    streams, between, took = asyncio.run(scenario())
    code, said = ends[0]
    say(f"{sum(streams)} of {STREAMS} streams whole, not ready after {took:.2f} s")

    assert [True] * STREAMS == streams
    assert 200 == between
    assert took <= 1.0
    assert 0 == code
    assert "the config is not changed" in said
    assert "ratekeeper.yaml:6: client_keys[0].limits[0]" in said
