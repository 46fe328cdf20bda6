"""What is measured of one gateway, in one process at a time, beside an upstream.

Every figure is of calls that were answered whole. Processor time is the gateway's own,
from /proc, its children's and the kernel's on its behalf included.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import uvloop

from benchmarks.gateways import load, process, upstream
from benchmarks.gateways.peer import Limits, Place
from benchmarks.gateways.upstream import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.gateways.load import Call, Target
    from benchmarks.gateways.peer import Peer
    from benchmarks.gateways.process import Process

CALLERS = 50  # calls in flight
RATE = 50  # calls a second that every gateway here can answer
MOST_RATE = 3_000  # that the callers can make without being late themselves
STREAMS, MANY_STREAMS = 50, 250
STREAM_RATE = 20
CHUNKS = Plan(chunks=100, pace_us=10_000)
FIRST = Plan(chunks=23, pace_us=10_000)
HELD = Plan(chunks=23, pace_us=20_000, held=1)
FULL = 0.95  # of a core: it can do no more


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long to look."""

    warm_s: float = 16.0  # Node's compiler wants them
    round_s: float = 4.0
    rounds: int = 3
    steady_s: float = 10.0
    open_streams: int = 1_000


QUICK = Times(warm_s=1.0, round_s=1.0, rounds=1, steady_s=1.5, open_streams=200)


@dataclasses.dataclass(slots=True, kw_only=True)
class Row:
    """A gateway's figures; what it could not do stays 0 and is told in `failed`."""

    name: str
    idle_mb: float = 0.0
    rps: float = 0.0
    cpu_us: float = 0.0
    busy: float = 0.0  # of its core, meanwhile
    others: float = 0.0  # of its core, taken by somebody else
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    half_rate: int = 0
    half_p50_ms: float = 0.0
    half_p99_ms: float = 0.0
    chunk_us: float = 0.0
    chunks_s: float = 0.0
    apart: float = 0.0  # reads of the callers a chunk: below 1, chunks were joined
    first_ms: float = 0.0
    open_whole: int = 0
    open_exact: int = 0
    open_mb: float = 0.0
    failed: int = 0


class Bench:
    """An upstream, and the times it takes by itself."""

    def __init__(self, port: int, times: Times) -> None:
        self.port = port
        self.times = times

    def turn(self, plan: Plan) -> dict[str, Any]:
        """Have the upstream go by a plan."""
        return self._ask(f"plan?{urlencode(dataclasses.asdict(plan))}")

    def seen(self) -> dict[str, Any]:
        """Ask the upstream what came."""
        return self._ask("seen")

    def count(self) -> int:
        """Say how many streams it holds."""
        return int(self.seen()["held"])

    def release(self) -> None:
        """Let the held streams go on."""
        self.turn(dataclasses.replace(HELD, held=0))

    def _ask(self, path: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/{path}"
        with urllib.request.urlopen(url, timeout=30) as reply:
            told: dict[str, Any] = json.load(reply)
        return told

    def target(self) -> Target:
        """Return whom callers call where no gateway is between."""
        return load.Target(self.port, {})


@contextlib.contextmanager
def bench(times: Times) -> Iterator[Bench]:
    """Run an upstream on the callers' core."""
    os.sched_setaffinity(0, {process.LOAD_CORE})
    port = process.free_port()
    argv = process.python("benchmarks.gateways.upstream", str(port))
    with process.running(argv, core=process.LOAD_CORE, env=process.OURS) as running:
        if not process.wait_for(port, running):
            message = "the upstream did not start"
            raise RuntimeError(message)
        yield Bench(port, times)


@contextlib.contextmanager
def started(
    peer: Peer,
    port: int,
    limits: Limits,
    *,
    keys: int = 1,
    core: int = process.GATEWAY_CORE,
) -> Iterator[tuple[Process, list[Target]]]:
    """Run a gateway on its core, and say whom its callers call."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = Place(folder=folder, port=process.free_port(), upstream=port, keys=keys)
        launch = peer.launch(place, limits)
        log = folder / "log"
        with process.running(
            launch.argv, core=core, env=launch.env, log=log
        ) as running:
            if not process.wait_for(place.port, running):
                message = f"{peer.name} did not start:\n{log.read_text()[-2000:]}"
                raise RuntimeError(message)
            yield (
                running,
                [
                    load.Target(place.port, headers, keeps_headers=limits.bind)
                    for headers in launch.callers
                ],
            )


def measure(peer: Peer, here: Bench) -> Row:
    """Take every figure of one gateway."""
    row = Row(name=peer.name)
    with started(peer, here.port, Limits()) as (running, [target]):
        here.turn(Plan())
        _warm(target, row)
        row.idle_mb = running.rss_mb()
        uvloop.run(load.flat_out(target, CALLERS, here.times.warm_s))
        _plain(row, running, target, here)
        _latency(row, target, here)
        _streams(row, running, target, here)
        _open(row, running, target, here)
    return row


def _warm(target: Target, row: Row) -> None:
    """Wait until it answers: some listen before they are ready."""
    status = 0
    for _ in range(100):
        [call] = uvloop.run(load.at_rate(target, 1, 1))
        if call.is_answered:
            return
        status = call.status
        time.sleep(0.2)
    message = f"{row.name} answers {status}"
    raise RuntimeError(message)


def _plain(row: Row, running: Process, target: Target, here: Bench) -> None:
    """Fifty calls in flight: how many a second, and at what price."""
    rounds = []
    for _ in range(here.times.rounds):
        spent, ticks = running.cpu_us(), process.core_ticks(process.GATEWAY_CORE)
        began = time.perf_counter()
        calls = uvloop.run(load.flat_out(target, CALLERS, here.times.round_s))
        took = time.perf_counter() - began
        spent = running.cpu_us() - spent
        answered = _answered(calls, row)
        others = process.others_share(ticks, process.GATEWAY_CORE, spent)
        rounds.append((answered / took, spent / answered, spent / 1e6 / took, others))
    row.rps, row.cpu_us, row.busy, row.others = map(
        statistics.median, zip(*rounds, strict=True)
    )


def _latency(row: Row, target: Target, here: Bench) -> None:
    """What it adds at a rate that all can answer, and at half of what it can."""
    seconds = here.times.steady_s
    row.p50_ms, row.p99_ms = _added(row, target, here, RATE, seconds)
    row.half_rate = int(min(row.rps / 2, MOST_RATE))
    half = _added(row, target, here, row.half_rate, here.times.round_s)
    row.half_p50_ms, row.half_p99_ms = half


def _streams(row: Row, running: Process, target: Target, here: Bench) -> None:
    """A hundred chunks a stream, a hundredth of a second apart; and the first byte."""
    here.turn(CHUNKS)
    busy = _chunks(row, running, target, here, STREAMS)
    if busy < FULL:
        price = row.chunk_us
        _chunks(row, running, target, here, MANY_STREAMS)
        row.chunk_us = price
    here.turn(FIRST)
    row.first_ms = _first_ms(target, here.times)
    row.first_ms -= _first_ms(here.target(), here.times)


def _chunks(
    row: Row, running: Process, target: Target, here: Bench, streams: int
) -> float:
    """Keep so many streams open; return how busy that keeps the gateway."""
    spent, began = running.cpu_us(), time.perf_counter()
    seconds = here.times.round_s
    calls = uvloop.run(load.flat_out(target, streams, seconds, stream=True))
    took, spent = time.perf_counter() - began, running.cpu_us() - spent
    whole = [call for call in calls if call.is_whole(CHUNKS.chunks)]
    row.failed += len(calls) - len(whole)
    if not whole:
        return 1.0
    chunks = len(whole) * CHUNKS.chunks
    row.chunk_us, row.chunks_s = spent / chunks, chunks / took
    row.apart = min(1.0, sum(call.reads for call in whole) / chunks)
    return spent / 1e6 / took


def _open(row: Row, running: Process, target: Target, here: Bench) -> None:
    """A thousand streams open at once: what that weighs, and whether all end whole."""
    here.turn(HELD)

    class Opened:
        def count(self) -> int:
            return here.count()

        def release(self) -> None:
            row.open_mb = running.rss_mb()
            here.release()

    calls = uvloop.run(load.held_open(target, here.times.open_streams, Opened()))
    row.open_mb = max(row.open_mb, running.rss_mb())
    exact = b"".join(upstream.events(HELD, usage=False))
    row.open_whole = sum(call.is_whole(HELD.chunks) for call in calls)
    row.open_exact = sum(b"".join(call.body) == exact for call in calls)


def _first_ms(target: Target, times: Times) -> float:
    calls = uvloop.run(load.at_rate(target, STREAM_RATE, times.round_s, stream=True))
    waits = [call.first - call.began for call in calls if call.is_answered]
    return statistics.median(waits) * 1e3 if waits else 0.0


def _answered(calls: Sequence[Call], row: Row) -> int:
    answered = sum(call.is_answered for call in calls)
    row.failed += len(calls) - answered
    return answered or 1


def _percentiles(calls: Sequence[Call]) -> tuple[float, float]:
    """Return how long half of the calls took, and 99 in 100, in ms."""
    waits = sorted(call.ended - call.began for call in calls if call.is_answered)
    if not waits:
        return 0.0, 0.0
    at = min(len(waits) - 1, int(len(waits) * 0.99))
    return statistics.median(waits) * 1e3, waits[at] * 1e3


def _added(
    row: Row, target: Target, here: Bench, rate: int, seconds: float
) -> tuple[float, float]:
    """Return what the gateway adds to calls at a rate, beside the same without it."""
    calls = uvloop.run(load.at_rate(target, rate, seconds))
    _answered(calls, row)
    half, most = _percentiles(calls)
    direct = _percentiles(uvloop.run(load.at_rate(here.target(), rate, seconds)))
    return half - direct[0], most - direct[1]
