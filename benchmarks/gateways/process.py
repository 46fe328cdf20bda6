"""A process that was started here: pinned to a core, watched by /proc, ended by its pid.

It knows how much processor time and memory the process and its children have used, and
nothing of what they do. Whatever was started is ended when its block is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent.parent
GATEWAY_CORE, LOAD_CORE = 0, max(os.sched_getaffinity(0))
OURS = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}  # the environment of our own programs
TASKSET = "/usr/bin/taskset"  # util-linux, on every machine
TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")
PATIENCE_S = 60.0  # LiteLLM takes a quarter of it to start
_GRACE_S = 5.0


class Process:
    """A program with its children, as /proc shows them."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def cpu_us(self) -> int:
        """Return the processor time used so far, in user code and in the kernel."""
        return sum(_cpu_us(pid) for pid in self._pids())

    def rss_mb(self) -> float:
        """Return the memory that is resident now."""
        return sum(_rss_kb(pid) for pid in self._pids()) / 1024

    def tell(self, signum: int) -> None:
        """Send it a signal."""
        self._popen.send_signal(signum)

    def end(self) -> None:
        """Ask it to end, and make it, children too: they share its group."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_GRACE_S)

    def _pids(self) -> list[int]:
        """Find it and what descends from it."""
        found = [self._popen.pid]
        for pid in found:
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, path.read_text().split())
        return found


def _cpu_us(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) * TICK_US


def _rss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    core: int,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[Process]:
    """Run a program on one core until the block is left."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log.open("wb")) if log else subprocess.DEVNULL
        popen = subprocess.Popen(
            [TASKSET, "--cpu-list", str(core), *argv],
            env=inherited | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process = Process(popen)
        try:
            yield process
        finally:
            process.end()


def python(module: str, *words: str) -> list[str]:
    """Return the command that runs a module of ours."""
    return [sys.executable, "-m", module, *words]


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: Process, patience_s: float = PATIENCE_S) -> bool:
    """Wait until somebody listens; False where the program ended or took too long."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until and process.is_running:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1),
        ):
            return True
        time.sleep(0.05)
    return False


def others_share(before: tuple[int, int], core: int, mine_us: int) -> float:
    """Return what part of a core went to neither idling nor the measured process."""
    busy, total = core_ticks(core)
    spent = (busy - before[0]) * TICK_US - mine_us
    return max(0.0, spent / max(1, (total - before[1]) * TICK_US))


def core_ticks(core: int) -> tuple[int, int]:
    """Return the busy ticks and all ticks of a core since it started."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{core} "):
            fields = list(map(int, line.split()[1:9]))
            return sum(fields) - fields[3] - fields[4], sum(fields)
    return 0, 0
