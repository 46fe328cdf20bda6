"""Where the time of a plain call through Ratekeeper goes, by part."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from benchmarks.gateways import load
from benchmarks.gateways.measure import CALLERS, bench, started
from benchmarks.gateways.ours import Ratekeeper
from benchmarks.gateways.peer import Limits

if TYPE_CHECKING:
    from benchmarks.gateways.measure import Times


def shares(times: Times) -> int:
    """Run fifty calls in flight under the sampler and print what it found."""
    with tempfile.TemporaryDirectory() as folder, bench(times) as here:
        file = Path(folder) / "shares"
        os.environ["RATEKEEPER_SHARES"] = str(file)
        peer = Ratekeeper(sampled=True)
        with started(peer, here.port, Limits()) as (running, [target]):
            uvloop.run(load.flat_out(target, CALLERS, times.warm_s))
            running.tell(signal.SIGUSR2)
            spent = running.cpu_us()
            calls = uvloop.run(load.flat_out(target, CALLERS, times.steady_s))
            print(f"{(running.cpu_us() - spent) / len(calls):.0f} \u00b5s a call")
        print(file.read_text())
    return 0
