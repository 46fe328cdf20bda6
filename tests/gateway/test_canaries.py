"""What watches the log of every test does see a secret there."""

from __future__ import annotations

import logging

import pytest

from tests.gateway import gates
from tests.gateway.conftest import Canaries


@pytest.mark.parametrize("secret", [gates.SECRET, gates.UPSTREAM_KEY, gates.PEPPER])
def test_a_secret_is_seen_in_a_message_and_in_a_traceback(secret: str) -> None:
    handler = Canaries()
    handler.handle(
        logging.makeLogRecord({"name": "aiohttp", "msg": f"a call with {secret}"})
    )
    try:
        raise ValueError(secret)
    except ValueError as error:
        told = (type(error), error, error.__traceback__)
    handler.handle(
        logging.makeLogRecord({"name": "aiohttp", "msg": "failed", "exc_info": told})
    )
    handler.handle(logging.makeLogRecord({"name": "aiohttp", "msg": "a call"}))

    assert 2 == len(handler.found)
