"""`make bench-gateway`: Ratekeeper with every limit on, beside other gateways.

All in one run over one upstream: gateways by turns on one core, upstream and callers on
the other. `--quick` looks a moment only; `--only NAME` at one; `--profile` tells where
Ratekeeper's own time goes. Returns 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
from typing import TYPE_CHECKING

from benchmarks.gateways.bare import Bare
from benchmarks.gateways.envoy import Envoy
from benchmarks.gateways.litellm import LiteLLM
from benchmarks.gateways.measure import QUICK, Times, bench, measure
from benchmarks.gateways.nginx import Nginx
from benchmarks.gateways.ours import Ratekeeper
from benchmarks.gateways.portkey import Portkey
from benchmarks.gateways.relay import Relay
from benchmarks.gateways.shares import shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gateways.measure import Row
    from benchmarks.gateways.peer import Peer

PEERS: tuple[Peer, ...] = (
    Ratekeeper(),
    Bare(),
    LiteLLM(),
    Portkey(),
    Envoy(),
    Nginx(),
    Relay(),
)
HEAD = (
    "| | req/s | CPU \u00b5s/req | core in use | added at 50/s: p50 ms | p99 ms "
    "| at half its most: p50 ms | p99 ms |",
    "|---|---:|---:|---:|---:|---:|---:|---:|",
)
STREAMS = (
    "| | \u00b5s/chunk | chunks/s | reads a chunk | added first byte ms | open, whole "
    "| exact | idle MB | open MB | failed |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)
CPU_US, CPU_RATIO = 200.0, 1.8
LITELLM_RATIO, LITELLM_ADDED, PORTKEY_RATIO = 40.0, 0.1, 2.5
CHUNKS_S, OPEN_MB = 15_000.0, 120.0


def plain(row: Row) -> str:
    """Return a gateway's line in the table of plain calls."""
    return (
        f"| {row.name} | {row.rps:,.0f} | {row.cpu_us:,.0f} | {row.busy:.0%} "
        f"| {row.p50_ms:.2f} | {row.p99_ms:.2f} "
        f"| {row.half_p50_ms:.2f} | {row.half_p99_ms:.2f} |"
    )


def streams(row: Row) -> str:
    """Return a gateway's line in the table of streams."""
    return (
        f"| {row.name} | {row.chunk_us:,.0f} | {row.chunks_s:,.0f} | {row.apart:.0%} "
        f"| {row.first_ms:.2f} | {row.open_whole:,} | {row.open_exact:,} "
        f"| {row.idle_mb:.0f} | {row.open_mb:.0f} | {row.failed} |"
    )


def bars(rows: dict[str, Row], open_streams: int) -> list[tuple[bool, str]]:
    """Hold Ratekeeper's row against what was asked of it."""
    ours = rows["Ratekeeper"]
    apart = 1e6 / ours.chunk_us  # a core's worth of chunks of which none is joined
    found = [
        (ours.cpu_us <= CPU_US, f"CPU a plain call: {ours.cpu_us:.0f} \u00b5s of 200"),
        (ours.chunks_s >= CHUNKS_S, f"{ours.chunks_s:,.0f} chunks/s of 15,000"),
        (apart >= CHUNKS_S, f"{apart:,.0f} by the CPU of chunks that come apart"),
        (ours.open_mb <= OPEN_MB, f"{ours.open_mb:.0f} MB of 120, streams open"),
        (
            ours.open_exact == open_streams,
            f"{ours.open_exact} of {open_streams} streams byte for byte",
        ),
        (not ours.failed, f"{ours.failed} calls failed"),
    ]
    for name, row in rows.items():
        if name.startswith("bare relay"):
            ratio = ours.cpu_us / row.cpu_us
            found.append((ratio <= CPU_RATIO, f"CPU: {ratio:.2f} x {name}, 1.8 asked"))
        if name.startswith("LiteLLM"):
            ratio = ours.rps / row.rps
            found.append((ratio >= LITELLM_RATIO, f"{ratio:.1f} x {name}, 40 asked"))
            part = ours.p50_ms / row.p50_ms
            found.append((part <= LITELLM_ADDED, f"added p50: {part:.1%} of its"))
            part = ours.p99_ms / row.p99_ms
            found.append((part <= LITELLM_ADDED, f"added p99: {part:.1%} of its"))
        if name.startswith("Portkey"):
            ratio = ours.rps / row.rps
            found.append((ratio >= PORTKEY_RATIO, f"{ratio:.1f} x {name}, 2.5 asked"))
    return found


def run(peers: Sequence[Peer], times: Times) -> dict[str, Row]:
    """Measure each gateway that is here; name those that are not."""
    rows = {}
    with bench(times) as here:
        for peer in peers:
            if why := peer.missing():
                print(f"left out: {why}", flush=True)
                continue
            try:
                row = measure(peer, here)
            except RuntimeError as error:
                print(f"left out: {error}", flush=True)
                continue
            rows[row.name] = row
            print(plain(row), streams(row), f"others: {row.others:.0%}", flush=True)
    return rows


def main() -> int:
    """Measure, print both tables and the bars, and return 1 if one is missed."""
    parser = argparse.ArgumentParser(prog="make bench-gateway")
    parser.add_argument("--quick", action="store_true", help="about two minutes")
    parser.add_argument("--only", help="measure those whose names hold this")
    parser.add_argument("--profile", action="store_true", help="Ratekeeper's shares")
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    times = QUICK if asked.quick else Times()
    if asked.profile:
        return shares(times)
    print(f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n")
    wanted = [
        peer for peer in PEERS
        if peer.missing() or (asked.only or "").lower() in peer.name.lower()
    ]  # fmt: skip
    rows = run(wanted, times)
    print("", *HEAD, *map(plain, rows.values()), sep="\n")
    print("", *STREAMS, *map(streams, rows.values()), sep="\n")
    if "Ratekeeper" not in rows:
        print("\nbars: not judged, Ratekeeper was not measured")
        return 1
    judged = bars(rows, times.open_streams)
    print()
    for good, text in judged:
        print(f"{'ok    ' if good else 'MISSED'} {text}")
    return not all(good for good, _ in judged)


if __name__ == "__main__":
    sys.exit(main())
