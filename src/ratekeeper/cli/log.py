"""The log of a program that serves: lines on standard error, written by a thread.

A pipe that nobody empties, or a terminal that is held, blocks whoever writes to it; the
loop that serves calls must not be that. What does not fit is lost, and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import time
from logging.handlers import QueueHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 10_000  # lines that wait to be written
_LAST_S = 2.0  # for writing them at the end


@contextlib.contextmanager
def on_stderr(*, as_json: bool) -> Iterator[None]:
    """Write Ratekeeper's log to standard error, as text or as JSON."""
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    aside = _Aside(_Json() if as_json else plain)
    log = logging.getLogger("ratekeeper")
    level = log.level
    log.addHandler(aside)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(aside)
        aside.end()


class _Aside(QueueHandler):
    """Hands each line to a thread that writes it."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._lines: queue.Queue[logging.LogRecord | None] = queue.Queue(_MOST)
        super().__init__(self._lines)
        self._layout = formatter
        self._lost = 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Leave a line to the thread, or lose it."""
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def _write(self) -> None:
        with contextlib.suppress(OSError):  # nobody will read any more
            # Not through sys.stderr, whose lock the end of the program would wait for.
            out = sys.stderr.fileno()
            while (record := self._lines.get()) is not None:
                os.write(out, self._line(record))
                lost, self._lost = self._lost, 0
                if lost:
                    record.msg = f"{lost} lines of the log were lost: nobody read it"
                    os.write(out, self._line(record))

    def _line(self, record: logging.LogRecord) -> bytes:
        # What is no UTF-8, such as half a surrogate in a name, must not end the log.
        return self._layout.format(record).encode(errors="backslashreplace") + b"\n"

    def end(self) -> None:
        """Have what waits written, if anybody reads it."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_LAST_S)
        self._thread.join(_LAST_S)


class _Json(logging.Formatter):
    """Writes every line as one object, whether its message is one or is plain text."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = record.getMessage()
        said: dict[str, Any] = {"message": text}
        if text.startswith("{"):
            with contextlib.suppress(ValueError):
                said = json.loads(text)
        head = {"time": self.formatTime(record), "level": record.levelname}
        return json.dumps({**head, **said})
