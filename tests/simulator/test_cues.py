"""The words that say what shall go wrong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.errors import ConfigError
from ratekeeper.simulator.cues import NO_CUE, Cue, FaultPlan
from ratekeeper.simulator.dialect import Trouble


@pytest.mark.parametrize(
    ("text", "cue"),
    [
        ("", NO_CUE),
        ("status=529", Cue(status=529)),
        (" cut = 3 , output=40 ", Cue(cut=3, output=40)),
        ("latency=0.5, stall=2", Cue(latency_us=500_000, stall_us=2_000_000)),
        ("drop", Cue(drop=True)),
        ("no-usage,no-headers", Cue(no_usage=True, no_headers=True)),
        ("keep-alive=2", Cue(keep_alive=2)),
        ("reason=billing", Cue(reason=Trouble.BILLING)),
        ("retry-after=1.5", Cue(retry_after_us=1_500_000)),
        ("output=999999", Cue(output=32_768)),
    ],
)
def test_a_cue_is_read(text: str, cue: Cue) -> None:
    assert cue == Cue.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stats=5", "'stats' is not known"),
        ("status=200", "an error status from 400 to 599"),
        ("status=abc", "an error status"),
        ("status", "an error status"),
        ("cut=-1", "a whole number"),
        ("cut=1.5", "a whole number"),
        ("latency=nan", "seconds from 0 to 3600"),
        ("latency=inf", "seconds"),
        ("pace=4000", "seconds"),
        ("drop=1", "no value"),
        ("reason=hunger", "expected one of throttled"),
        ("=5", "'' is not known"),
        ("x" * 401, "expected at most 400"),
    ],
)
def test_a_cue_that_makes_no_sense_names_the_word_and_what_was_expected(
    text: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Cue.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_cue_or_a_config_error(text: str) -> None:
    try:
        cue = Cue.parse(text)
    except ConfigError:
        return

    assert isinstance(cue, Cue)


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("status=429", Trouble.THROTTLED),
        ("status=401", Trouble.UNAUTHORIZED),
        ("status=529", Trouble.OVERLOADED),
        ("status=500", Trouble.SERVER),
        ("status=599", Trouble.SERVER),
        ("status=418", Trouble.OTHER),
        ("status=429, reason=billing", Trouble.BILLING),
        ("cut=3", None),
        ("error=3, reason=throttled", None),
    ],
)
def test_a_status_stands_for_a_trouble(text: str, trouble: Trouble | None) -> None:
    assert trouble == Cue.parse(text).trouble


def test_a_plan_follows_its_script_by_number() -> None:
    plan = FaultPlan.parse(["status=500 # 2", "cut=1 # 3"])
    source = random.Random(1)
    cues = [plan.cue(number, source) for number in (1, 2, 3, 4)]

    assert [NO_CUE, Cue(status=500), Cue(cut=1), NO_CUE] == cues


def test_a_plan_follows_its_rates_and_repeats_itself_with_the_same_seed() -> None:
    plan = FaultPlan.parse(["status=500 @ 0.25"])
    drawn = [
        [plan.cue(number, source) for number in range(4_000)]
        for source in (random.Random(7), random.Random(7))
    ]

    assert drawn[0] == drawn[1]
    assert 900 < sum(cue.status == 500 for cue in drawn[0]) < 1_100


@pytest.mark.parametrize(
    "text",
    [
        "status=500",
        "status=500 @ 1.5",
        "status=500 @ x",
        "cut=1 # x",
        "@",
        "drop @ nan",
    ],
)
def test_a_fault_without_how_often_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="how often it comes"):
        FaultPlan.parse([text])


def test_a_rate_outside_zero_to_one_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="expected 0 to 1"):
        FaultPlan(rates={"drop": 2.0})
