"""A provider down for five minutes under full demand, and back again.

Few calls a second make the bars harder, not easier: the retry budget is as large as for
a thousand. `python -m benchmarks.outage` plays the same at that rate.
"""

from __future__ import annotations

import pytest

from benchmarks.outage import BARE, CLIENTS, DOWN_S, END_S, FAULTS, UP_S, measure

PER_SECOND = 4
RECOVERY_S = 10


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("client", CLIENTS)
def test_an_outage_is_not_multiplied_and_its_end_is_used_at_once(
    client: str, fault: str
) -> None:
    found = measure(client, fault, PER_SECOND)
    up_s = DOWN_S + END_S - UP_S

    assert found.attempts <= found.bound, found
    assert found.recovered_s <= RECOVERY_S, found
    assert found.quota / 60 * 0.95 <= found.normal, found
    assert found.quota / 60 * 0.95 * up_s <= found.answered, found


def test_the_sdk_alone_multiplies_an_outage() -> None:
    """So the bar above is not one that anybody passes."""
    found = measure(BARE, "503", PER_SECOND)

    assert found.bound < found.attempts
