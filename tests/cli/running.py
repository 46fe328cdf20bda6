"""Run the command line as a person does: in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_KEPT = ("PATH", "PYTHONPATH", "HOME", "COVERAGE_PROCESS_START", "COVERAGE_FILE")

START = [
    sys.executable,
    "-c",
    "import sys; from ratekeeper.cli.main import main; sys.argv[0] = 'ratekeeper'; main()",
]


def run(*arguments: str, timeout: float = 15) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*START, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )


class Served:
    """A server that is running."""

    def __init__(self, process: subprocess.Popen[str], greeting: str) -> None:
        self.process = process
        self.greeting = greeting

    @property
    def facts(self) -> dict[str, Any]:
        """What it said of itself, with --json."""
        facts: dict[str, Any] = json.loads(self.greeting)
        return facts

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """Send it a signal; returns exit code, the rest of its output, and errors."""
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


@contextlib.contextmanager
def simulate(*arguments: str) -> Iterator[Served]:
    """Start `ratekeeper simulate` on a free port and wait until it says where it is."""
    with subprocess.Popen(
        [*START, "simulate", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield Served(process, _greeting(process.stdout, "--json" in arguments))
        finally:
            if process.poll() is None:
                process.kill()


@contextlib.contextmanager
def serve(
    folder: Path,
    *arguments: str,
    start: Sequence[str] = START,
    log: str = "",
    **environ: str,
) -> Iterator[Served]:
    """Start `ratekeeper serve --json` in a folder, with this environment alone.

    Its log goes to a file where one is named, else into a pipe, which nobody reads
    until it has ended.
    """
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    said = os.open(log, os.O_CREAT | os.O_WRONLY) if log else subprocess.PIPE
    with subprocess.Popen(
        [*start, "serve", "--json", "--listen", "127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
        cwd=folder,
        env={**kept, **environ},
    ) as process:
        assert process.stdout is not None
        if log:
            os.close(said)
        try:
            yield Served(process, process.stdout.readline())
        finally:
            if process.poll() is None:
                process.kill()


def _greeting(out: IO[str], as_json: bool) -> str:
    lines = [out.readline()]
    while lines[-1] and not as_json and "ratekeeper.http_client" not in lines[-1]:
        lines.append(out.readline())
    return "".join(lines)
