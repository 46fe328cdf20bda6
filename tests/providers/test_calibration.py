"""Calibration: the average follows, the bound is passed by few."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers.calibration import STREAMS, TRUSTED, Calibrator, Stream

HERE = Stream("openai", "o200k", "search", "cjk")
ELSEWHERE = Stream("openai", "o200k", "search", "latin")


def taught(*ratios: float, stream: Stream = HERE) -> Calibrator:
    """Return a calibrator that saw calls of 1,000 tokens come to so many times that."""
    calibrator = Calibrator()
    for ratio in ratios:
        calibrator.learn(stream, 1000, round(1000 * ratio))
    return calibrator


def test_what_nothing_is_known_of_is_taken_as_estimated_and_bounded_half_above() -> (
    None
):
    calibrator = Calibrator()

    assert (1000, 1500) == (
        calibrator.expected(HERE, 1000),
        calibrator.upper(HERE, 1000),
    )


@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.37, 3.0])
def test_the_expected_figure_follows_what_is_counted(ratio: float) -> None:
    calibrator = taught(*[ratio] * 200)

    assert calibrator.expected(HERE, 1000) == pytest.approx(1000 * ratio, rel=0.02)


def test_a_stream_is_trusted_after_a_few_answers() -> None:
    before, after = taught(*[2.0] * (TRUSTED - 1)), taught(*[2.0] * TRUSTED)

    assert (1000, 1500) == (before.expected(HERE, 1000), before.upper(HERE, 1000))
    assert 1800 < after.expected(HERE, 1000) <= 2000


def test_streams_are_told_apart() -> None:
    calibrator = taught(*[2.0] * 100)

    assert calibrator.expected(HERE, 1000) > 1900
    assert 1000 == calibrator.expected(ELSEWHERE, 1000)


def test_a_changed_tokenizer_is_learned_within_some_two_hundred_calls() -> None:
    calibrator = taught(*[1.0] * 500, *[1.35] * 200)

    assert calibrator.expected(HERE, 1000) == pytest.approx(1350, rel=0.02)


def test_less_than_one_call_in_a_hundred_passes_the_upper_figure() -> None:
    draws = random.Random(5)
    calibrator = Calibrator()
    above = []
    for _ in range(6000):
        counted = round(1000 * draws.lognormvariate(0, 0.15))
        above.append(counted > calibrator.upper(HERE, 1000))
        calibrator.learn(HERE, 1000, counted)

    assert 0.002 < statistics.fmean(above[1000:]) < 0.01
    assert 1250 < calibrator.upper(HERE, 1000) < 1700


def test_the_upper_figure_keeps_to_a_steady_stream_within_two_hundred_calls() -> None:
    assert taught(*[1.0] * 200).upper(HERE, 1000) == 1000
    assert taught(*[1.0] * 99).upper(HERE, 1000) == 1500


def test_one_odd_call_is_forgotten_after_two_hundred_more() -> None:
    assert taught(3.0, *[1.0] * 198).upper(HERE, 1000) == 3000
    assert taught(3.0, *[1.0] * 200).upper(HERE, 1000) <= 1010


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=60))
def test_whatever_is_counted_the_figures_stay_in_bounds(
    seen: list[tuple[int, int]],
) -> None:
    calibrator = Calibrator()
    for estimated, counted in seen:
        calibrator.learn(HERE, estimated, counted)
    expected, upper = (
        calibrator.expected(HERE, 10_000),
        calibrator.upper(HERE, 10_000),
    )

    assert 3_000 <= expected <= upper <= 40_000
    assert 0 == calibrator.expected(HERE, 0)


@pytest.mark.parametrize(("estimated", "counted"), [(0, 5), (5, 0), (-1, 5), (5, -1)])
def test_what_says_nothing_teaches_nothing(estimated: int, counted: int) -> None:
    calibrator = Calibrator()
    calibrator.learn(HERE, estimated, counted)

    assert 0 == len(calibrator)


def test_the_streams_remembered_are_bounded_and_the_longest_unused_goes_first() -> None:
    calibrator = Calibrator(streams=3)
    names = [Stream("openai", route=str(n)) for n in range(4)]
    for stream in (names[0], names[1], names[2]) * TRUSTED:
        calibrator.learn(stream, 100, 200)
    calibrator.learn(names[0], 100, 200)
    calibrator.learn(names[3], 100, 200)

    assert 3 == len(calibrator)
    assert calibrator.expected(names[0], 100) > 150
    assert 100 == calibrator.expected(names[1], 100)


def test_very_many_streams_are_forgotten_again() -> None:
    calibrator = Calibrator()
    for n in range(STREAMS + 100):
        calibrator.learn(Stream("openai", route=str(n)), 100, 100)

    assert STREAMS == len(calibrator)


def test_a_calibrator_of_no_streams_is_refused() -> None:
    with pytest.raises(ValueError, match="one stream or more"):
        Calibrator(streams=0)
