"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import pytest

from tests.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_gateway_stays_as_it_is_under_faults() -> None:
    assert [] == soak(0.5)
