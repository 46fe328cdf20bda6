"""The limit language: every limit prints as it is read, every mistake is pointed at."""

from __future__ import annotations

import itertools
import pathlib
import pickle
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekeeper.core import limits, units
from ratekeeper.core.limits import CONCURRENT, Algorithm, Limit, Resets, parse_limits
from ratekeeper.core.units import DAY, HOUR, MINUTE, MONTH, NANO, SECOND, WEEK
from ratekeeper.errors import ConfigError

MALFORMED = [
    line.partition("\t")[::2]
    for line in (pathlib.Path(__file__).parent / "malformed_limits.txt")
    .read_text(encoding="utf-8")
    .splitlines()
    if "\t" in line
]
ZONES = sorted(zoneinfo.available_timezones())


@st.composite
def any_limit(draw: st.DrawFn) -> Limit:
    """Draw a valid limit of any shape."""
    unit = draw(
        st.sampled_from(["requests", "tokens", "input_tokens", "images", "usd", "cny"])
        | st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
    )
    most = units.MAX_MONEY if unit in units.CURRENCIES else units.MAX_AMOUNT
    number = st.one_of(
        st.integers(1, most),
        st.integers(1, 3000).map(lambda n: n * 1000),
        st.integers(1, 9999),
    )
    kwargs: dict[str, Any] = {"amount": draw(number), "unit": unit}
    if unit == CONCURRENT or draw(st.integers(0, 9)) == 0:
        kwargs.update(unit=CONCURRENT, window_us=0, algorithm=Algorithm.CONCURRENCY)
        kwargs["amount"] = draw(st.integers(1, units.MAX_AMOUNT))
        return Limit(**kwargs)
    kwargs["window_us"] = draw(
        st.integers(1, units.MAX_WINDOW)
        | st.sampled_from([SECOND, MINUTE, 5 * HOUR, DAY, WEEK, MONTH, 366 * DAY])
    )
    kwargs["algorithm"] = draw(st.sampled_from([None, *Algorithm]))
    kwargs["burst"] = draw(st.none() | number)
    if draw(st.booleans()):
        kwargs["window_us"] = draw(st.sampled_from([DAY, MONTH]))
        kwargs["burst"] = None
        kwargs["algorithm"] = draw(st.sampled_from([None, Algorithm.FIXED_WINDOW]))
        kwargs["resets"] = Resets(
            minute_of_day=draw(st.integers(0, 1439)),
            zone=draw(st.sampled_from(ZONES)),
        )
    try:
        return Limit(**kwargs)
    except ConfigError:
        kwargs.update(burst=None, algorithm=None, unit="tokens")
        kwargs["amount"] = min(kwargs["amount"], units.MAX_AMOUNT)
        return Limit(**kwargs)


@settings(max_examples=1000)
@given(any_limit())
def test_a_limit_reads_back_as_printed(limit: Limit) -> None:
    text = str(limit)

    assert limit == Limit.parse(text)
    assert limit == Limit.parse(f"  {text.replace('/', ' / ', 1)}  ")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("500 requests/minute", "500 requests/minute"),
        ("500 rpm", "500 requests/minute"),
        ("120k tokens/minute", "120k tokens/minute"),
        ("120k tpm", "120k tokens/minute"),
        ("2M input_tokens/minute", "2M input_tokens/minute"),
        ("400k otpm", "400k output_tokens/minute"),
        ("400k ITPM", "400k input_tokens/minute"),
        ("10_000_000 tokens/day", "10M tokens/day"),
        ("10M tpd", "10M tokens/day"),
        ("20 concurrent", "20 concurrent"),
        ("$50/day", "$50/day"),
        ("$0.5/day", "$0.5/day"),
        ("$1.5k/month", "$1500/month"),
        ("5 usd/day", "$5/day"),
        ("€5/week", "5 eur/week"),
        ("£5/day", "5 gbp/day"),
        ("350 cny/month", "350 cny/month"),
        ("$5/day burst 0.25", "$5/day burst 0.25"),
        ("10 rps", "10 requests/second"),
        ("10 rph", "10 requests/hour"),
        ("10 rpd", "10 requests/day"),
        ("1 request/second", "1 requests/second"),
        ("60 requests/minute burst 5", "60 requests/minute burst 5"),
        ("60 RPM Burst 5 USING Paced", "60 requests/minute burst 5 using paced"),
        ("60 rpm using paced burst 5", "60 requests/minute burst 5 using paced"),
        (
            "1000 requests/day resets 00:00 America/Los_Angeles",
            "1000 requests/day resets 00:00 America/Los_Angeles",
        ),
        ("1000 rpd resets 17:30", "1000 requests/day resets 17:30 UTC"),
        (
            "1000 rpd resets 17:30 using fixed-window",
            "1000 requests/day using fixed-window resets 17:30 UTC",
        ),
        ("300 requests/5 hours", "300 requests/5 hours"),
        ("300 requests/300 minutes", "300 requests/5 hours"),
        ("30 requests/10s", "30 requests/10 seconds"),
        ("30 requests/1.5 seconds", "30 requests/1.5 seconds"),
        ("30 requests/0.000001s", "30 requests/0.000001 seconds"),
        ("7 images/7 days", "7 images/week"),
        ("7 custom_unit/minute", "7 custom_unit/minute"),
        ("7 cached_tokens/minute", "7 cached_tokens/minute"),
        ("7 queries/minute", "7 queries/minute"),
        ("7 re/minute", "7 re/minute"),
        ("7 tickets/minute", "7 tickets/minute"),
        ("15k concurrent", "15k concurrent"),
    ],
)
def test_the_language_has_one_canonical_form(text: str, canonical: str) -> None:
    assert canonical == str(Limit.parse(text))


@pytest.mark.parametrize(("text", "word"), MALFORMED, ids=[m[0] for m in MALFORMED])
def test_a_malformed_limit_is_pointed_at(text: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limit.parse(text)
    message = str(caught.value)

    assert (
        "expected" in message
        or "only a number" in message
        or "twice" in message
        or ("leave" in message or "taken" in message or "goes with" in message)
    )
    if word == "-":
        assert message.startswith(f"limit '{text}' ends too early: expected ")
        return
    first, shown, pointer = message.split("\n")
    at = pointer.index("^")
    assert f"  {text}" == shown
    assert word == shown[at : pointer.rindex("^") + 1]
    assert first.startswith(f"limit '{text}': {word!r}: ")


def test_the_corpus_of_malformed_limits_is_large() -> None:
    assert len(MALFORMED) >= 100


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("500 rpmm", "did you mean 'rpm'?"),
        ("500 rmp", "did you mean 'rpm'?"),
        ("500 req/minute", "did you mean 'requests'?"),
        ("500 Reqs/minute", "did you mean 'requests'?"),
        ("500 requets/minute", "did you mean 'requests'?"),
        ("500 tok/minute", "did you mean 'tokens'?"),
        ("500 toks/minute", "did you mean 'tokens'?"),
        ("500 tokn/minute", "did you mean 'tokens'?"),
        ("500 input/minute", "did you mean 'input_tokens'?"),
        ("500 inputtokens/minute", "did you mean 'input_tokens'?"),
        ("500 out_tokens/minute", "did you mean 'output_tokens'?"),
        ("500rpm", "expected a space: '500 rpm'"),
        ("120kTPM", "expected a space: '120k TPM'"),
        ("20concurrent", "expected a space: '20 concurrent'"),
        ("500requests/minute", "expected a space: '500 requests'"),
        ("500 per minute", "expected '/' and a period: 'requests/minute'"),
        ("20 concurent", "did you mean 'concurrent'?"),
        ("500 requests/minuet", "did you mean 'minute'?"),
        ("60 rpm brust 5", "did you mean 'burst'?"),
        ("60 rpm using token-buckett", "did you mean 'token-bucket'?"),
        ("60 rpd resets 00:00 Europe/Berlim", "did you mean 'Europe/Berlin'?"),
        ("1m tpm", "M is a million"),
        ("60 rpm/minute", "already says per what"),
    ],
)
def test_a_near_miss_is_named(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Limit.parse(text)

    assert hint in str(caught.value)


@pytest.mark.parametrize("several", [["500 rpm", "120k tpm"], ("500 rpm",)])
def test_limits_in_a_list_are_asked_for_one_by_one(several: Any) -> None:
    with pytest.raises(ConfigError, match=r"not (list|tuple): give .* \*limits"):
        Limit.parse(several)


@pytest.mark.parametrize("text", ["", " ", "500", "500 requests/"])
def test_a_limit_that_ends_early_says_what_is_missing(text: str) -> None:
    with pytest.raises(ConfigError, match="ends too early: expected"):
        Limit.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "500 rpm\n",
        "500\trpm",
        "500 rpm\x00",
        "500\xa0rpm",
        "\ud800 rpm",
        "5" * 201,
        "9" * 10**6 + " rpm",
        "/" * 10**6,
        "500 rpm" + " burst" * 10**5,
    ],
    ids=range(9),
)
def test_a_wall_of_text_is_refused_without_being_printed(text: str) -> None:
    with pytest.raises(ConfigError, match="one short line") as caught:
        Limit.parse(text)

    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", [None, 5, b"500 rpm", ["500 rpm"], True])
def test_what_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(ConfigError, match="a limit is a string"):
        Limit.parse(text)  # type: ignore[arg-type]


@settings(max_examples=500)
@given(st.text(max_size=80))
def test_any_text_is_a_limit_or_a_config_error(text: str) -> None:
    _parses_or_is_refused(text)


WORDS = [
    *(
        "500",
        "120k",
        "$5",
        "0",
        "-1",
        "1.5",
        "€",
        "rpm",
        "tpm",
        "requests",
        "concurrent",
    ),
    *("/", "/minute", "/day", "5", "hours", "month", "burst", "using", "resets"),
    *("paced", "token-bucket", "fixed-window", "00:00", "UTC", "Europe/Berlin", "key"),
]


@settings(max_examples=1500)
@given(st.lists(st.sampled_from(WORDS), max_size=9))
def test_any_words_of_the_language_are_a_limit_or_a_config_error(
    words: list[str],
) -> None:
    _parses_or_is_refused(" ".join(words))


def _parses_or_is_refused(text: str) -> None:
    try:
        limit = Limit.parse(text)
    except ConfigError:
        return
    assert limit == Limit.parse(str(limit))


@pytest.mark.parametrize(
    "fields",
    [
        {"amount": 0},
        {"amount": True},
        {"amount": 1.5},
        {"amount": 10**16},
        {"unit": "request"},
        {"unit": "req"},
        {"unit": "tokenss"},
        {"unit": "rpm"},
        {"unit": "burst"},
        {"unit": "key"},
        {"unit": "Tokens"},
        {"unit": ""},
        {"unit": 5},
        {"window_us": 0},
        {"window_us": -5},
        {"window_us": 60.0},
        {"window_us": 367 * DAY},
        {"algorithm": "paced"},
        {"algorithm": Algorithm.CONCURRENCY},
        {"unit": CONCURRENT},
        {"unit": CONCURRENT, "window_us": 0},
        {"burst": 0},
        {"burst": True},
        {"burst": 5, "algorithm": Algorithm.FIXED_WINDOW},
        {"burst": 5, "window_us": DAY, "resets": Resets(minute_of_day=0)},
        {"resets": Resets(minute_of_day=0)},
        {
            "resets": Resets(minute_of_day=0),
            "window_us": DAY,
            "algorithm": Algorithm.PACED,
        },
        {"algorithm": Algorithm.PACED, "window_us": DAY},
        {"algorithm": Algorithm.PACED, "unit": "usd"},
    ],
)
def test_a_limit_that_exists_is_valid(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"limit of"):
        Limit(**{"amount": 5, "unit": "tokens", "window_us": MINUTE, **fields})


@pytest.mark.parametrize("minute", [-1, 1440])
def test_a_time_of_day_is_one(minute: int) -> None:
    with pytest.raises(ConfigError, match="not a time of day"):
        Resets(minute_of_day=minute)


@pytest.mark.parametrize("zone", ["", "Mars", "../etc/passwd", "America", "x" * 5000])
def test_a_time_zone_is_one(zone: str) -> None:
    with pytest.raises(ConfigError, match="not a known time zone") as caught:
        Resets(minute_of_day=0, zone=zone)

    assert len(str(caught.value)) < 250


def test_a_system_without_time_zones_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(ConfigError, match="pip install tzdata"):
        Resets(minute_of_day=0, zone="Mars")


def test_limits_are_made_by_period() -> None:
    assert "10 requests/second" == str(Limit.per_second(requests=10))
    assert "90k tokens/minute" == str(Limit.per_minute(tokens=90_000))
    assert "5 requests/day" == str(Limit.per_day(request=5))
    assert "$5/day" == str(Limit.per_day(usd=5))
    with pytest.raises(TypeError, match="exactly one unit"):
        Limit.per_day(requests=1, tokens=5)
    with pytest.raises(TypeError, match="whole number"):
        Limit.per_day(requests=True)
    with pytest.raises(ConfigError, match="amount from 1"):
        Limit.per_day(requests=0)


@pytest.mark.parametrize(
    ("text", "unsaid", "algorithm"),
    [
        ("60 rpm", Algorithm.SLIDING_WINDOW, Algorithm.SLIDING_WINDOW),
        ("60 rpm", Algorithm.PACED, Algorithm.PACED),
        ("60 rph", Algorithm.PACED, Algorithm.PACED),
        ("60 rpd", Algorithm.PACED, Algorithm.SLIDING_WINDOW),
        ("$5/minute", Algorithm.PACED, Algorithm.SLIDING_WINDOW),
        ("60 rpd", Algorithm.TOKEN_BUCKET, Algorithm.TOKEN_BUCKET),
        ("60 rpm burst 5", Algorithm.PACED, Algorithm.TOKEN_BUCKET),
        ("60 rpd resets 00:00", Algorithm.PACED, Algorithm.FIXED_WINDOW),
        ("5 concurrent", Algorithm.PACED, Algorithm.CONCURRENCY),
        ("60 rpm using leaky-bucket", Algorithm.PACED, Algorithm.LEAKY_BUCKET),
    ],
)
def test_what_is_unsaid_is_filled_in(
    text: str, unsaid: Algorithm, algorithm: Algorithm
) -> None:
    assert algorithm is Limit.parse(text).resolved(unsaid).algorithm


def test_limits_of_a_policy_are_at_least_one_and_none_twice() -> None:
    with pytest.raises(ConfigError, match="no limits given"):
        parse_limits([])
    with pytest.raises(ConfigError, match="rule the same thing: keep one"):
        parse_limits(["60 rpm", Limit.parse("30 rpm")])
    assert 4 == len(parse_limits(["60 rpm", "10 rpm burst 5", "60 tpm", "60 rph"]))


def test_money_is_counted_in_billionths() -> None:
    limit = Limit.parse("$0.5/day")

    assert NANO // 2 == limit.amount
    assert limit.is_money
    assert not Limit.parse("5 rpm").is_money


@pytest.mark.parametrize(
    ("word", "code"),
    [("5 dollars/day", "usd"), ("50 Euros/month", "eur"), ("5 yuan/5 hours", "cny")],
)
def test_the_name_of_a_currency_is_no_unit_of_one_s_own(word: str, code: str) -> None:
    with pytest.raises(ConfigError, match=rf"currency's code \(did you mean '{code}'"):
        Limit.parse(word)


def test_a_limit_pickles_and_hashes() -> None:
    limit = Limit.parse("60 rpd resets 00:00 Europe/Berlin")

    assert limit == pickle.loads(pickle.dumps(limit))
    assert 1 == len({limit, Limit.parse(str(limit))})


def test_no_word_of_acquire_can_be_a_unit() -> None:
    for word, period in itertools.product(limits._RESERVED, ["minute", "5 hours"]):
        with pytest.raises(ConfigError, match="taken by acquire"):
            Limit.parse(f"5 {word}/{period}")
