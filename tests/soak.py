"""A gateway under load and random faults for as long as one likes: does it stay as it is?

    python -m tests.soak 30        # minutes; `make soak`

Callers ask, stream, hang up, send wrong keys and too much at once; the provider fails,
breaks off and dawdles. Afterwards memory, open files, tasks and threads must be where
they were once warm, and the gateway must have had nothing to report.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2

from tests.cli.running import Served, serve
from tests.gateway import gates

# As a person starts it; SIGUSR1 has it say which tasks it has.
START = [
    sys.executable,
    "-c",
    "import asyncio, json, os, signal, sys\n"
    "def tell(*_):\n"
    "    names = [one.get_coro().__qualname__ for one in asyncio.all_tasks()]\n"
    "    os.write(1, json.dumps(names).encode() + b'\\n')\n"
    "signal.signal(signal.SIGUSR1, tell)\n"
    "from ratekeeper.cli.main import main; sys.argv[0] = 'ratekeeper'; main()",
]
FAULTS = ("status=500 @ 0.02", "status=529 @ 0.01", "cut=3 @ 0.02", "drop @ 0.01")
CALLERS = 40
LAST_S = 10.0  # for calls that were under way to end, on a machine that has much to do
SLOPE_MB = 1.0  # an hour
SPARE_MB = 8.0  # what a short run's noise comes to
CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts:
      - {{name: one, api_key: "env:UPSTREAM_KEY", limits: [100k rpm, 20 concurrent]}}
      - {{name: two, api_key: "env:UPSTREAM_KEY", limits: [100k rpm, 20 concurrent]}}
teams: {{web: {{limits: [$1000/day]}}}}
client_keys:
  - name: app
    team: web
    hash: "{hash}"
    limits: [50k rpm, 50M tpm, 30 concurrent]
    max_wait: 2s
prices: {{gpt-4o: {{input: 1, output: 2, max_output: 400}}}}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What the gateway holds at one moment."""

    at_s: float
    rss_mb: float
    files: int
    threads: int


def sample(pid: int) -> Sample:
    """Read /proc."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = {words[0]: words[1] for words in map(str.split, status) if len(words) > 1}
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    rss_mb = int(told["VmRSS:"]) / 1024
    return Sample(time.monotonic(), rss_mb, files, int(told["Threads:"]))


def tasks(served: Served) -> Counter[str]:
    """Ask which tasks there are, by the names of their coroutines."""
    served.process.send_signal(signal.SIGUSR1)
    assert served.process.stdout is not None
    return Counter(json.loads(served.process.stdout.readline()))


async def _call(client: httpx2.AsyncClient, draw: random.Random) -> str:
    body = {
        "model": "gpt-4o",
        "max_tokens": draw.randint(1, 60),
        "messages": gates.MESSAGES,
        "stream": draw.random() < 0.5,
        "user": "u" * draw.choice((10, 10, 10_000)),
    }
    key = "rk-wrong" if draw.random() < 0.05 else gates.SECRET
    headers = {"authorization": f"Bearer {key}"}
    within_s = draw.choice((0.01, 0.05, 5, 5, 5, 5))
    try:
        async with asyncio.timeout(within_s):
            url = "/v1/chat/completions"
            return str((await client.post(url, json=body, headers=headers)).status_code)
    except TimeoutError:
        return "left"
    except httpx2.HTTPError:
        return "broken"


async def _load(url: str, for_s: float, pid: int) -> tuple[Counter[str], list[Sample]]:
    outcomes: Counter[str] = Counter()
    samples: list[Sample] = []
    end = time.monotonic() + for_s

    async def caller(seed: int) -> None:
        draw = random.Random(seed)
        async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
            while time.monotonic() < end:
                outcomes[await _call(client, draw)] += 1

    async def watch() -> None:
        while time.monotonic() < end:
            samples.append(sample(pid))
            await asyncio.sleep(for_s / 60)

    await asyncio.gather(watch(), *(caller(seed) for seed in range(CALLERS)))
    return outcomes, samples


def slope_mb(samples: list[Sample]) -> float:
    """Return how memory grew in megabytes an hour, in the later two thirds."""
    warm = samples[len(samples) // 3 :]
    found = statistics.linear_regression(
        [one.at_s for one in warm], [one.rss_mb for one in warm]
    )
    return found.slope * 3600


def _complaints(
    served: Served,
    before: tuple[Sample, Counter[str]],
    samples: list[Sample],
    log: Path,
) -> list[str]:
    first, idle = before
    until = time.monotonic() + LAST_S
    time.sleep(1.0)  # for the last of the connections to close
    while (left := tasks(served) - idle) and time.monotonic() < until:
        time.sleep(0.5)
    after = sample(served.process.pid)
    code, _, _ = served.end(signal.SIGTERM)
    err = log.read_text()
    warm = samples[len(samples) // 3]
    grown = max(one.rss_mb for one in samples[-5:]) - warm.rss_mb
    hours = (samples[-1].at_s - warm.at_s) / 3600
    found = []
    if grown > SPARE_MB + SLOPE_MB * hours:
        found.append(f"memory grew by {grown:.1f} MB, {slope_mb(samples):.1f} an hour")
    if after.files > first.files + 60:  # connections to the provider stay open
        found.append(f"open files: {first.files} before, {after.files} after")
    if left:
        found.append(f"tasks that are left: {dict(left)}")
    if after.threads > warm.threads + 2:
        found.append(f"threads: {warm.threads} when warm, {after.threads} after")
    if code or "Traceback" in err or "ERROR" in err:
        found.append(f"exit code {code}, and it said: {err[-2000:]}")
    return found


def soak(minutes: float) -> list[str]:
    """Run for so long; returns what there is to complain of."""
    with (
        tempfile.TemporaryDirectory() as name,
        gates.behind("openai", *FAULTS, latency_s=0.01, jitter_s=0.05) as upstream,
    ):
        terms = {"url": upstream.url, "hash": gates.digest()}
        (Path(name) / "ratekeeper.yaml").write_text(CONFIG.format(**terms))
        log = Path(name) / "log"
        with serve(Path(name), start=START, log=str(log), **gates.ENVIRON) as served:
            pid = served.process.pid
            time.sleep(1.0)  # until all that runs all the time does
            before = sample(pid), tasks(served)
            outcomes, samples = asyncio.run(
                _load(served.facts["url"], minutes * 60, pid)
            )
            _say(str(dict(outcomes.most_common())))
            last = samples[-1]
            _say(
                f"{last.rss_mb:.0f} MB, {slope_mb(samples):+.1f} an hour; {last.files} "
                f"files, {last.threads} threads"
            )
            found = _complaints(served, before, samples, log)
        if not outcomes["200"] or not outcomes["left"]:
            found.append(f"too little happened: {dict(outcomes)}")
    return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run, and say how it went."""
    found = soak(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0)
    for complaint in found:
        _say(complaint)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
