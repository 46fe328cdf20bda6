"""What every test of the gateway proves beside its own: its log keeps all secrets.

Everything is logged, down to DEBUG, by the gateway and by what it is made of.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

import pytest

from tests.gateway import gates

SECRETS = (gates.SECRET, gates.UPSTREAM_KEY, gates.PEPPER)
CLIENTS = ("httpx2", "httpcore2", "openai", "anthropic")  # the test's own


class Canaries(logging.Handler):
    """Keeps the lines in which a secret stands."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(CLIENTS):
            return
        said = record.getMessage()
        if record.exc_info:
            said += "".join(traceback.format_exception(*record.exc_info))
        if any(secret in said for secret in SECRETS):
            self.found.append(f"{record.name}: {said}")


@pytest.fixture(autouse=True)
def canaries() -> Iterator[None]:
    """Fail a test in which a secret was logged."""
    handler, root = Canaries(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)

    assert [] == handler.found
