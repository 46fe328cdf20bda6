"""The log of `serve`: what is written, whatever the lines hold."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from typing import TYPE_CHECKING

import pytest

from ratekeeper.cli import log
from ratekeeper.cli.log import on_stderr

if TYPE_CHECKING:
    from pathlib import Path

LOG = logging.getLogger("ratekeeper.tests")


def written(
    path: Path, monkeypatch: pytest.MonkeyPatch, *said: str, as_json: bool
) -> list[str]:
    """Return the lines that come of some messages."""
    # pytest's own capture of it could not be sent between processes.
    monkeypatch.setattr(logging.getLogger("ratekeeper"), "propagate", False)
    with path.open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with on_stderr(as_json=as_json):
            for text in said:
                LOG.warning("%s", text)
    return path.read_text("utf-8").splitlines()


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_that_is_no_text_does_not_end_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    odd, after = written(
        tmp_path / "log", monkeypatch, "half \ud800", "after it", as_json=as_json
    )

    assert "half \\ud800" in odd
    assert "after it" in after


def test_a_message_that_is_an_object_is_one_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [line] = written(
        tmp_path / "log", monkeypatch, '{"event": "refused"}', as_json=True
    )

    said = json.loads(line)
    assert ("refused", "WARNING") == (said["event"], said["level"])


def test_lines_that_nobody_reads_are_lost_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("ratekeeper"), "propagate", False)
    monkeypatch.setattr(log, "_MOST", 10)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    full = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            full += os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with on_stderr(as_json=False):
            for _ in range(100):
                LOG.warning("nobody reads this")
            pipe.read(full)  # somebody reads
        file.close()
        said = pipe.read().decode()
    told = said.count("nobody reads this")

    assert 10 <= told <= 11  # one may have been on its way
    assert f" {100 - told} lines of the log were lost: nobody read it" in said
