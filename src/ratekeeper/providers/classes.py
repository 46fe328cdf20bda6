"""Classes: how many words, digits, marks, letters of which script a text is made of.

One look at the bytes. Each character of ASCII becomes a byte with one bit for what it
is, and the text one large integer, in which runs and borders are found for all classes
at once by shifts, and counted by their bits. Of the rest the leading bytes of UTF-8
tell the script. Runs that natural text does not have are weighed apart, so that nobody
hides tokens in them. It refuses to know weights, tokenizers and providers.
"""

from __future__ import annotations

from typing import NamedTuple

# What is counted, in the order of the counts. Words are runs of ASCII letters.
NAMES = (
    "odd",  # thousandths of a token for runs no text has; its weight is always 1
    "words",
    "letters from the third on",
    "a capital after a small letter",
    "capitals",
    "a small letter after capitals",
    "digits",
    "runs of digits",
    "runs of line ends",
    "runs of blanks from two on",
    "marks of punctuation",
    "runs of marks",
)
# Of text that is not all ASCII, in characters.
MORE_NAMES = (
    "signs of Latin-1",
    "Latin-1 letters",
    "further Latin letters",
    "rare letters of two bytes",
    "Greek",
    "Cyrillic",
    "Hebrew",
    "Arabic",
    "Devanagari",
    "Thai",
    "further Indic",
    "Vietnamese",
    "further letters of three bytes",
    "general punctuation",
    "symbols",
    "CJK punctuation",
    "kana",
    "Han",
    "Hangul",
    "full width",
    "emoji and the like",
)
_PLAIN = len(NAMES)
_DIGITS, _MARKS = NAMES.index("digits"), NAMES.index("marks of punctuation")
_KANA, _HAN, _HANGUL = (
    _PLAIN + MORE_NAMES.index(name) for name in ("kana", "Han", "Hangul")
)

# Natural text has no longer runs; what is beyond, in thousandths of a token.
LONG_WORD, LONG_LETTER = 24, 1000  # "aaaa…": a token a letter, for some
LONG_BLANKS, LONG_BLANK = 32, 62
LONG_LINES, LONG_LINE = 5, 125
LONG_RETURN = (
    1875  # for each carriage return among them: "\r\n…" is a token a character
)
LONG_MARKS = 8  # compact JSON has up to that many; the whole of a longer run counts
LONG_MARK, LONG_RULE = 600, 31  # a rule is of one mark or two, such as =-=-
CONTROL = 1000

PIECE = 8192  # bytes of ASCII in one integer; a run across a border counts as two

_LETTER, _CAPITAL, _DIGIT, _LINE, _BLANK, _MARK, _CONTROL, _RETURN = (
    1 << k for k in range(8)
)
_PUNCTUATION = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def _bits(code: int) -> int:
    """Return what one byte of ASCII is."""
    character = bytes([code])
    if character.isalpha():
        return _LETTER | (_CAPITAL if character.isupper() else 0)
    for those, bit in (
        (b"0123456789", _DIGIT),
        (b"\r", _LINE | _RETURN),
        (b"\n", _LINE),
        (b" \t", _BLANK),
        (_PUNCTUATION, _MARK),
    ):
        if character in those:
            return bit
    return _CONTROL


def _everywhere(bit: int) -> int:
    return int.from_bytes(bytes([bit]) * PIECE, "little")


_TO_BITS = bytes(_bits(code) if code < 128 else 0 for code in range(256))  # noqa: PLR2004 - ASCII
_LETTERS, _CAPITALS = _everywhere(_LETTER), _everywhere(_CAPITAL)
_ALL_DIGITS, _LINES = _everywhere(_DIGIT), _everywhere(_LINE)
_BLANKS, _ALL_MARKS = _everywhere(_BLANK), _everywhere(_MARK)
_CONTROLS = _everywhere(_CONTROL)
_NOT_ASCII = bytes(range(0x80, 0x100))

# The scripts that a leading byte of UTF-8 tells: a letter for each, in order.
_LEADS = (
    (0xC2, 0xC2),  # signs of Latin-1
    (0xC3, 0xC3),  # Latin-1 letters
    (0xC4, 0xC9),  # further Latin letters
    (0xCA, 0xDF),  # rare letters of two bytes, less those that follow
    (0xCE, 0xCF),  # Greek
    (0xD0, 0xD1),  # Cyrillic
    (0xD7, 0xD7),  # Hebrew
    (0xD8, 0xDB),  # Arabic
    (0xE0, 0xE0),  # Indic and Thai
    (0xE1, 0xE1),  # further letters of three bytes
    (0xE2, 0xE2),  # symbols, general punctuation among them
    (0xE3, 0xE3),  # kana, CJK punctuation among them
    (0xE4, 0xE9),  # Han
    (0xEA, 0xED),  # Hangul
    (0xEE, 0xEF),  # full width
    (0xF0, 0xF4),  # emoji and the like
)


def _lead_table() -> bytes:
    table = bytearray(256)
    for at, (first, last) in enumerate(_LEADS):
        table[first : last + 1] = bytes([at]) * (last + 1 - first)
    return bytes(table)


# The order in which they are looked for: what texts are made of, the most usual first.
_USUAL = (10, 12, 11, 14, 5, 1, 0, 2, 13, 15, 9, 8, 7, 4, 6, 3)
_TO_LEADS = _lead_table()
_NO_LEADS = bytes(range(0xC2))

_TO_MARKS = bytes(c if c in _PUNCTUATION else 32 for c in range(256))


class Counts(NamedTuple):
    """What a text is made of, by `NAMES` and, unless it is all ASCII, `MORE_NAMES`."""

    each: list[int]
    characters: int
    utf8_bytes: int


def count(text: str) -> Counts:
    """Count the classes of a text, whatever it holds."""
    if text.isascii():
        data = plain = text.encode()
        more = []
    else:
        data = text.encode("utf-8", "surrogatepass")
        plain = data.translate(None, _NOT_ASCII)
        more = _count_more(data)
    each = _count_plain(plain[:PIECE])
    if len(plain) > PIECE:
        for at in range(PIECE, len(plain), PIECE):
            piece = _count_plain(plain[at : at + PIECE])
            each = [a + b for a, b in zip(each, piece, strict=True)]
    each += more
    return Counts(each, len(text), len(data))


def script(counts: Counts) -> str:
    """Say which kind of text it is, of four: `cjk`, `other`, `dense`, `latin`.

    Their estimates err each in its own way: scripts that hold a word in a character or
    two, others beyond Latin, digits and marks, and the rest.
    """
    each, characters = counts.each, counts.characters
    if len(each) > _PLAIN:
        if (each[_KANA] + each[_HAN] + each[_HANGUL]) * 5 > characters:
            return "cjk"
        if sum(each[_PLAIN:]) * 5 > characters:
            return "other"
    if (each[_DIGITS] + each[_MARKS]) * 10 > characters * 3:
        return "dense"
    return "latin"


def _count_plain(data: bytes) -> list[int]:
    """Count the classes of ASCII, by `NAMES`."""
    text = int.from_bytes(data.translate(_TO_BITS), "little")
    before = text << 8  # each character's forerunner, in its place
    same = text & before  # continues a run
    first = text ^ same  # begins one
    third = same & (same << 8)
    letters = same & _LETTERS
    digits = runs_of_digits = after_capitals = indents = 0
    if found := text & _ALL_DIGITS:
        digits = found.bit_count()
        runs_of_digits = (first & _ALL_DIGITS).bit_count()
    if found := same & _CAPITALS:
        found = (found << 7) & letters
        after_capitals = (found ^ (found & (text >> 1))).bit_count()
    if found := same & _BLANKS:
        indents = (found ^ (found & (found << 8))).bit_count()
    return [
        _odd(data, text, third),
        (first & _LETTERS).bit_count(),
        (third & _LETTERS).bit_count(),
        ((first >> 1) & letters).bit_count(),
        (text & _CAPITALS).bit_count(),
        after_capitals,
        digits,
        runs_of_digits,
        (first & _LINES).bit_count(),
        indents,
        (text & _ALL_MARKS).bit_count(),
        (first & _ALL_MARKS).bit_count(),
    ]


def _odd(data: bytes, text: int, third: int) -> int:
    """Return thousandths of a token for control characters and for very long runs."""
    total = 0
    sixth = third & (third << 24)
    twelfth = sixth & (sixth << 48)
    if found := text & _CONTROLS:
        total += found.bit_count() * CONTROL
    if twelfth and (long := twelfth & (twelfth << 96)):
        found = long & (third << 8 * (LONG_WORD - 2)) & _LETTERS
        total += found.bit_count() * LONG_LETTER
        found = long & (long << 8 * (LONG_BLANKS - 23)) & _BLANKS
        total += found.bit_count() * LONG_BLANK
    if found := sixth & _LINES:
        total += found.bit_count() * LONG_LINE
        total += (found & (text >> 4)).bit_count() * LONG_RETURN
    if sixth & _ALL_MARKS and sixth & (third << 8 * (LONG_MARKS - 2)) & _ALL_MARKS:
        runs = data.translate(_TO_MARKS).split()
        for run in [run for run in runs if len(run) > LONG_MARKS]:
            plain = len(set(run)) <= 2  # noqa: PLR2004 - a ruled line, such as =-=-
            total += len(run) * (LONG_RULE if plain else LONG_MARK)
    return total


def _count_more(data: bytes) -> list[int]:
    """Count the characters beyond ASCII, by `MORE_NAMES`."""
    leads = data.translate(_TO_LEADS, _NO_LEADS)
    found = [0] * len(_LEADS)
    left = len(leads)
    for at in _USUAL:  # few texts are of more than four kinds
        if not left:
            break
        found[at] = leads.count(at)
        left -= found[at]
    indic, letters, symbols, kana = found[8:12]
    devanagari = thai = vietnamese = general = cjk = 0
    if indic:
        devanagari = data.count(b"\xe0\xa4") + data.count(b"\xe0\xa5")
        thai = data.count(b"\xe0\xb8") + data.count(b"\xe0\xb9")
    if letters:
        vietnamese = data.count(b"\xe1\xba") + data.count(b"\xe1\xbb")
    if symbols:
        general = data.count(b"\xe2\x80")
    if kana:
        cjk = data.count(b"\xe3\x80")
    return [
        *found[:8],
        devanagari,
        thai,
        indic - devanagari - thai,
        vietnamese,
        letters - vietnamese,
        general,
        symbols - general,
        cjk,
        kana - cjk,
        *found[12:],
    ]
