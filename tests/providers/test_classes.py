"""Classes: what the shifts count is what a plain reading counts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.providers import classes
from ratekeeper.providers.classes import MORE_NAMES, NAMES, PIECE, count, script
from ratekeeper.providers.weights import WEIGHTS

ALPHABET = "aaabZQ019  \t\n\r.,=!\x00\x7féßжش\u0915のア漢字한。\uff01😀\ud800"
MARK = r"[!-/:-@\[-`{-~]"
PLAIN = {
    "words": "[A-Za-z]+",
    "letters from the third on": "(?<=[A-Za-z]{2})[A-Za-z]",
    "a capital after a small letter": "(?<=[a-z])[A-Z]",
    "capitals": "[A-Z]",
    "a small letter after capitals": "(?<=[A-Z]{2})[a-z]",
    "digits": "[0-9]",
    "runs of digits": "[0-9]+",
    "runs of line ends": r"[\r\n]+",
    "runs of blanks from two on": "[ \t]{2,}",
    "marks of punctuation": MARK,
    "runs of marks": MARK + "+",
}
MORE = {
    "signs of Latin-1": "\u0080-\u00bf",
    "Latin-1 letters": "\u00c0-\u00ff",
    "further Latin letters": "\u0100-\u027f",
    "rare letters of two bytes": "\u0280-\u037f\u0480-\u05bf\u0700-\u07ff",
    "Greek": "\u0380-\u03ff",
    "Cyrillic": "\u0400-\u047f",
    "Hebrew": "\u05c0-\u05ff",
    "Arabic": "\u0600-\u06ff",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
    "further Indic": "\u0800-\u08ff\u0980-\u0dff\u0e80-\u0fff",
    "Vietnamese": "\u1e80-\u1eff",
    "further letters of three bytes": "\u1000-\u1e7f\u1f00-\u1fff",
    "general punctuation": "\u2000-\u203f",
    "symbols": "\u2040-\u2fff",
    "CJK punctuation": "\u3000-\u303f",
    "kana": "\u3040-\u3fff",
    "Han": "\u4000-\u9fff",
    "Hangul": "\ua000-\udfff",
    "full width": "\ue000-\uffff",
    "emoji and the like": "\U00010000-\U0010ffff",
}


def odd(plain: str) -> int:
    """Weigh the runs that natural text does not have."""
    total = len(re.findall(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", plain)) * 1000
    total += 1000 * len(re.findall("(?<=[A-Za-z]{24})[A-Za-z]", plain))
    total += 62 * len(re.findall("(?<=[ \t]{32})[ \t]", plain))
    total += 125 * len(re.findall(r"(?<=[\r\n]{5})[\r\n]", plain))
    total += 1875 * len(re.findall(r"(?<=[\r\n]{5})\r", plain))
    for run in re.findall(MARK + "{9,}", plain):
        total += len(run) * (31 if len(set(run)) <= 2 else 600)
    return total


def naive(text: str) -> list[int]:
    """Count one class after the other."""
    plain = "".join(c for c in text if c.isascii())
    counts = [odd(plain), *(len(re.findall(form, plain)) for form in PLAIN.values())]
    if not text.isascii():
        counts += [len(re.findall(f"[{chars}]", text)) for chars in MORE.values()]
    return counts


def test_every_count_has_a_name_and_every_name_a_weight() -> None:
    assert NAMES == ("odd", *PLAIN)
    assert MORE_NAMES == tuple(MORE)
    assert {len(NAMES) + len(MORE_NAMES)} == {len(row) for row in WEIGHTS.values()}


@given(
    st.lists(
        st.tuples(st.text(ALPHABET, min_size=1, max_size=3), st.integers(1, 40)),
        max_size=8,
    ).map(lambda runs: "".join(text * times for text, times in runs))
    | st.text(ALPHABET, max_size=100)
    | st.text(max_size=50)
)
def test_a_text_is_counted_as_a_plain_reading_counts_it(text: str) -> None:
    counts = count(text)

    assert naive(text) == counts.each
    assert len(text) == counts.characters
    assert len(text.encode("utf-8", "surrogatepass")) == counts.utf8_bytes


def test_runs_of_every_length_are_counted_as_a_plain_reading_counts_them() -> None:
    runs = [
        c * n + end
        for c in ("a", "Z", "aB", "0", ".", "=-", "#!/", "\n", "\r", " ", " \t", "漢")
        for n in (1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 23, 24, 25, 31, 32, 33, 65)
        for end in ("", "a", "\n")
    ]

    assert [naive(run) for run in runs] == [count(run).each for run in runs]


@pytest.mark.parametrize("name", MORE)
def test_every_character_of_a_class_is_counted_as_one(name: str) -> None:
    at = len(NAMES) + MORE_NAMES.index(name)

    for character in (MORE[name][0], MORE[name][-1]):
        assert 3 == count(character * 3).each[at]


def test_a_text_of_several_pieces_counts_as_the_sum_of_them() -> None:
    line = "Sphinx of black quartz, judge 42 vows!\n"
    text = line * (3 * PIECE // len(line))
    whole, one = count(text).each, count(line).each
    borders = 2 * len(text) // PIECE

    for total, each in zip(whole, one, strict=True):
        assert abs(total - each * (len(text) // len(line))) <= 2 * borders


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("It was a bright cold day in April", "latin"),
        ("", "latin"),
        ("größer als je zuvor", "latin"),
        ("今天天气很好，我们去公园", "cjk"),
        ("git 是一个分布式的版本控制系统", "cjk"),
        ("カタカナとひらがな", "cjk"),
        ("오늘은 날씨가 좋다", "cjk"),
        ("Сегодня хорошая погода", "other"),
        ("สวัสดีครับ", "other"),
        ('{"a":[1,2,3],"b":{"c":4.5}}', "dense"),
        ("1.25,3.75,12.5\n", "dense"),
    ],
)
def test_a_text_is_of_one_of_four_kinds(text: str, kind: str) -> None:
    assert kind == script(count(text))


def test_a_long_run_is_found_wherever_it_stands() -> None:
    for run in ("a" * 60, "!@#$" * 5, "\n" * 9, " " * 64, "\x01"):
        for before in ("", "x = 1é", " word" * 1000):
            assert odd(run) == count(f"{before}0{run}0").each[0]


def test_the_table_of_leading_bytes_leaves_none_out() -> None:
    told = {b for first, last in classes._LEADS for b in range(first, last + 1)}

    assert told == set(range(0xC2, 0xF5))
