"""Calibration: averages follow, bounds are passed by few, old lessons fade."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.calibration import (
    LEAST,
    MOST,
    MOST_OUTPUT,
    STREAMS,
    TRUSTED,
    Calibrator,
    Stream,
)
from ratekeeper.providers.facts import UNSET_OUTPUT, Estimate

HERE = Stream("openai", "o200k", "search", "cjk")
ELSEWHERE = Stream("openai", "o200k", "search", "latin")


def taught(*ratios: float, stream: Stream = HERE) -> Calibrator:
    """Return a calibrator that saw calls of 1,000 tokens come to so many times that."""
    calibrator = Calibrator()
    for ratio in ratios:
        calibrator.learn(stream, 1000, round(1000 * ratio))
    return calibrator


def figure(calibrator: Calibrator, margin: int = 100, stream: Stream = HERE) -> int:
    """Return what a call estimated at 1,000 tokens is taken for."""
    ratio = calibrator.bound(stream, margin)
    assert ratio is not None

    return -(-ratio // 1000)


# Input.


def test_of_what_never_answered_nothing_is_known() -> None:
    assert Calibrator().bound(HERE) is None


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.37, 3.0])
def test_the_expected_figure_follows_what_is_counted(ratio: float) -> None:
    assert figure(taught(*[ratio] * 200)) == pytest.approx(1000 * ratio, rel=0.02)


def test_a_figure_rises_at_the_first_answer() -> None:
    once = taught(1.6)

    assert 1300 == figure(once)
    assert figure(once, 125) >= 1600


def test_a_figure_falls_only_after_a_few_answers() -> None:
    before, after = taught(*[0.5] * (TRUSTED - 1)), taught(*[0.5] * TRUSTED)

    assert 1000 == figure(before)
    assert figure(before, 125) > 1200
    assert figure(after) < 600
    assert figure(after, 125) < 700


def test_the_margin_shrinks_with_each_answer_until_a_hundred_have_come() -> None:
    figures = [figure(taught(*[1.0] * n), 125) for n in (1, 20, 50, 99, 100)]

    assert [1248, 1200, 1125, 1003, 1000] == figures


def test_streams_are_told_apart() -> None:
    calibrator = taught(*[2.0] * 100)

    assert figure(calibrator) > 1900
    assert calibrator.bound(ELSEWHERE) is None


def test_a_changed_tokenizer_is_learned_within_some_two_hundred_calls() -> None:
    calibrator = taught(*[1.0] * 500, *[1.35] * 200)

    assert figure(calibrator) == pytest.approx(1350, rel=0.02)


@pytest.mark.parametrize("margin", [105, 125])
def test_about_one_call_in_a_hundred_passes_the_bound(margin: int) -> None:
    draws = random.Random(5)
    calibrator = taught(1.0)
    above = []
    for _ in range(6000):
        counted = round(1000 * draws.lognormvariate(0, 0.15))
        above.append(counted > figure(calibrator, margin))
        calibrator.learn(HERE, 1000, counted)

    assert 0.002 < statistics.fmean(above[1000:]) < 0.01
    assert statistics.fmean(above[:200]) < 0.06
    assert 1250 < figure(calibrator, margin) < 1700


def test_one_odd_call_is_forgotten_after_two_hundred_more() -> None:
    assert 3000 == figure(taught(3.0, *[1.0] * 198), 125)
    assert figure(taught(3.0, *[1.0] * 199), 125) <= 1010


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**12)), max_size=60),
    st.integers(100, 200),
)
def test_whatever_is_counted_the_ratio_stays_in_bounds(
    seen: list[tuple[int, int]], margin: int
) -> None:
    calibrator = taught(1.0)
    for estimated, counted in seen:
        calibrator.learn(HERE, estimated, counted)
    expected, bound = calibrator.bound(HERE), calibrator.bound(HERE, margin)

    assert expected is not None
    assert bound is not None
    assert LEAST <= expected <= bound <= MOST * margin // 100


@pytest.mark.parametrize(("estimated", "counted"), [(0, 5), (5, 0), (-1, 5), (5, -1)])
def test_what_says_nothing_teaches_nothing(estimated: int, counted: int) -> None:
    calibrator = Calibrator()
    calibrator.learn(HERE, estimated, counted)
    calibrator.learn_output(HERE, min(estimated, counted))

    assert 0 == len(calibrator)


# An estimate, corrected.

Estimates = st.builds(
    Estimate,
    family=st.just("o200k"),
    script=st.just("latin"),
    text=st.integers(0, 10**6),
    least=st.integers(0, 10**5),
    most=st.integers(10**5, 10**7),
    frame=st.integers(0, 1000),
    parts=st.integers(0, 10**5),
    margin=st.integers(100, 150),
)


@given(Estimates, st.none() | st.integers(LEAST, MOST))
def test_no_lesson_takes_a_prompt_below_its_floor_or_above_its_bytes(
    estimate: Estimate, ratio: int | None
) -> None:
    upper = estimate.upper(ratio)
    rest = estimate.frame + estimate.parts

    assert max(1, estimate.least + rest) <= upper
    assert upper <= max(1, estimate.most + -(-rest * estimate.margin // 100))


@given(Estimates)
def test_without_a_lesson_the_margin_is_put_on(estimate: Estimate) -> None:
    assert estimate.upper() == estimate.upper(estimate.margin * 10_000)


# Output.


def outputs(*counts: int) -> int:
    calibrator = Calibrator()
    for count in counts:
        calibrator.learn_output(HERE, count)
    return calibrator.output(HERE)


def test_output_is_a_guess_before_anything_was_put_out() -> None:
    assert UNSET_OUTPUT == outputs()


def test_the_guess_at_output_gives_way_to_what_was_seen() -> None:
    assert UNSET_OUTPUT // 2 == outputs(*[20] * 50)
    assert 20 == outputs(*[20] * 100)
    assert 4000 == outputs(4000)


def test_one_long_answer_in_a_hundred_says_little_and_two_say_it() -> None:
    assert 20 == outputs(*[20] * 99, 9000, *[20] * 5)
    assert 9000 == outputs(*[20] * 98, 9000, 9000, *[20] * 99)


def test_long_answers_are_forgotten_after_two_hundred_more() -> None:
    assert 20 == outputs(9000, 9000, *[20] * 198)


def test_about_one_answer_in_a_hundred_is_longer_than_the_output_held() -> None:
    draws = random.Random(7)
    calibrator = Calibrator()
    above = []
    for _ in range(6000):
        counted = round(draws.lognormvariate(5.7, 0.8))
        above.append(counted > calibrator.output(HERE))
        calibrator.learn_output(HERE, counted)

    assert 0.005 < statistics.fmean(above[200:]) < 0.02


@given(st.lists(st.integers(-5, 10**12), max_size=120))
def test_whatever_is_put_out_the_figure_stays_in_bounds(counts: list[int]) -> None:
    assert 0 < outputs(*counts) <= MOST_OUTPUT


# Memory.


def test_the_streams_remembered_are_bounded_and_the_longest_unused_goes_first() -> None:
    calibrator = Calibrator(streams=3)
    names = [Stream("openai", route=str(n)) for n in range(4)]
    for stream in (names[0], names[1], names[2], names[0], names[3]):
        calibrator.learn(stream, 100, 200)
        calibrator.learn_output(stream, 5000)

    assert 6 == len(calibrator)
    assert (None, UNSET_OUTPUT) == (
        calibrator.bound(names[1]),
        calibrator.output(names[1]),
    )
    assert all(calibrator.bound(names[at]) for at in (0, 2, 3))


def test_very_many_streams_are_forgotten_again() -> None:
    calibrator = Calibrator()
    for n in range(STREAMS + 100):
        calibrator.learn(Stream("openai", route=str(n)), 100, 100)

    assert STREAMS == len(calibrator)


def test_a_calibrator_of_no_streams_is_refused() -> None:
    with pytest.raises(ValueError, match="one stream or more"):
        Calibrator(streams=0)
