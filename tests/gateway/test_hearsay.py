"""What callers say of accounts, and how far it binds others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from ratekeeper.gateway import hearsay
from ratekeeper.gateway.hearsay import Hearsay

NOW = 1_700_000_000 * SECOND


def test_a_report_of_seconds_binds_everybody_for_just_that_long() -> None:
    said = Hearsay()
    for_all_us = said.heard("a", "openai/1", "m", 9 * SECOND, NOW)

    assert 9 * SECOND == for_all_us
    assert 0 == said.wait_us("a", "openai/1", "m", NOW)  # the account itself is paused


def test_a_longer_one_binds_others_for_a_minute_and_its_flow_for_an_hour() -> None:
    said = Hearsay()
    for_all_us = said.heard("a", "openai/1", "m", 30 * DAY, NOW)

    assert MINUTE == for_all_us
    assert HOUR - SECOND == said.wait_us("a", "openai/1", "m", NOW + SECOND)
    assert 0 == said.wait_us("a", "openai/1", "m", NOW + HOUR)


def test_it_is_about_one_account_one_model_and_one_flow() -> None:
    said = Hearsay()
    said.heard("a", "openai/1", "m", DAY, NOW)

    assert 0 == said.wait_us("b", "openai/1", "m", NOW)
    assert 0 == said.wait_us("a", "openai/2", "m", NOW)
    assert 0 == said.wait_us("a", "openai/1", "other", NOW)


def test_many_who_report_the_same_moment_have_it_said_once() -> None:
    """As the fifty calls do that a team has under way when a limit is reached."""
    said = Hearsay()
    waits = {said.heard("a", "openai/1", "m", 5 * SECOND, NOW) for _ in range(50)}
    later = said.heard("a", "openai/1", "m", 55 * SECOND, NOW + 5 * SECOND)

    assert {5 * SECOND} == waits
    assert 55 * SECOND == later


@given(
    st.lists(
        st.tuples(st.integers(0, 2 * MINUTE), st.integers(0, 31 * DAY)), max_size=60
    )
)
def test_nobody_has_others_wait_for_more_than_a_minute_in_ten(
    reports: list[tuple[int, int]],
) -> None:
    said, now = Hearsay(), NOW
    until_us, waited_us = NOW, 0
    for later_us, wait_us in reports:
        now += later_us
        ends_us = now + said.heard("a", "openai/1", "m", wait_us, now)
        waited_us += max(0, ends_us - max(now, until_us))
        until_us = max(until_us, ends_us)

        assert now <= ends_us <= now + MINUTE
        assert waited_us <= MINUTE + (now - NOW) // 10


def test_what_it_remembers_is_bounded() -> None:
    said = Hearsay()
    for at in range(hearsay._MOST + 5):
        said.heard("a", "openai/1", f"m{at}", DAY, NOW)

    assert 0 == said.wait_us("a", "openai/1", "m4", NOW)
    assert 0 < said.wait_us("a", "openai/1", "m5", NOW)
