from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(60)
def test_a_flood_of_keys_forgives_nobody_and_stays_in_bounds() -> None:
    """A hundredth of ten million keys against a bound of one million."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.stores.flood", "--keys=100000", "--bound=10000"],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(done.stdout)

    assert 0 == figures["forgiven"]
    assert 0 == figures["refused"]
    assert 10_000 == figures["kept"]
    assert figures["bytes_a_key"] <= 3000
