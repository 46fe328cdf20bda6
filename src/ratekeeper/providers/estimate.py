"""Token estimates: what a prompt will come to, before anybody has counted it.

Texts are weighed by classes of characters, with weights fitted per family of
tokenizers; long runs, which natural text does not have, have a floor of their own. The
result is never above the text's UTF-8 bytes, which no tokenizer exceeds, and never
below a quarter of its characters, which is how providers guess.
It refuses to know vocabularies, and any text longer than it takes to look at it once.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter

# Thousandths of a token for: a word; each of its letters 6 to 12; each from 13; a
# change of case in a word; a digit; a run of digits; a run of new lines; a punctuation
# mark; a run of them; a letter of Latin beyond ASCII, Cyrillic and Greek, Arabic and
# Hebrew, Indic and Thai, kana, Han, Hangul, CJK punctuation; a byte of anything else.
# Fitted on texts in twelve languages, code, JSON and tables.
_Weights = tuple[int, ...]
_FITTED = """
modern   714 331  0 1533 466 646 2199  55 531   0 345  405  454 551  593  658 1393 510
o200k    719 324  0 1495 329 829 2011  55 438   0 320  355  376 596  730  676 1503 477
cl100k   718 381  0 1533 330 859 2097   0 424 768 648  896 1136 887 1081 1146 1470 682
deepseek 813 301  0 1563 330 715 2165  74 549 390 382  445  446 558  559  785 1312 481
qwen     621 382  0 1526 985 416 2531  13 597   0 306  365  314 342  534  568 1474 651
glm      709 367  0 1520 602 577 2243  14 445   0 340  500 1016 593  627  954 1084 539
minimax  789 215  0 1540 330 737 2202  57 513 984 450  445  787 237  452  595 1956 470
tekken   706 338  0 1556 981 431 2196  55 558   0 350  351  462 544  972  640  922 997
claude-3 1105 175 0 2450 335 532 2414   0 825 469 551  790  905 713 1144 1337 1201 672
claude   1293 517 14 2462 336 524 2510 302 624 323 558 793  900 719 1160 1340 1205 671
"""
_WEIGHTS: dict[str, _Weights] = {
    name: tuple(int(weight) for weight in weights)
    for name, *weights in (line.split() for line in _FITTED.strip().splitlines())
}
_FAMILIES = (
    # (how a model's name begins, whose tokenizer it has); the first that fits
    ("claude-3", "claude-3"),
    ("claude", "claude"),
    ("gpt-4o", "o200k"),
    ("gpt-4.", "o200k"),
    ("gpt-4", "cl100k"),
    ("gpt-3", "cl100k"),
    ("text-embedding", "cl100k"),
    ("gpt", "o200k"),
    ("chatgpt", "o200k"),
    ("o1", "o200k"),
    ("o3", "o200k"),
    ("o4", "o200k"),
    ("deepseek", "deepseek"),
    ("qw", "qwen"),
    ("glm", "glm"),
    ("minimax", "minimax"),
    ("mi", "tekken"),
    ("codestral", "tekken"),
)
_MODERN = "modern"

PER_MESSAGE = 7  # Claude frames a single message in 6 to 7; OpenAI in 3, and 3 for all
PER_TOOL = 10
ANY_TOOLS = 400  # the hidden prompt that comes with tools: 389 in Anthropic's example
IMAGE = 3930  # the most an image comes to: Claude from 4.7; OpenAI's high detail 2,940
IMAGE_LOW = 85  # detail: low, OpenAI
IMAGE_ORIGINAL = 14_364  # detail: original, OpenAI
DOCUMENT = 3000  # a page, as Anthropic counts the densest
BASE64_PER_TOKEN = 16  # of a document: some 50 KB and 3,000 tokens a page
AUDIO_PER_TOKEN = 400  # 10 tokens a second; base64 of 24 kbit/s speech, the thinnest
CHARS_PER_TOKEN = 4  # how providers guess at admission

_WHOLE = (
    256 * 1024
)  # characters looked at one by one; above, three slices stand for all
_SLICE = 64 * 1024

_LONG_WORD = 24
_LONG_PUNCTUATION = 6
_LONG_NEWLINES = 4
_LONG_SPACES = 32

_NON_ASCII = re.compile(r"[^\x00-\x7f]+")
_CLASSES = tuple(
    re.compile(f"[{ranges}]+")
    for ranges in (
        "\u00c0-\u024f\u1e00-\u1eff",
        "\u0370-\u052f",
        "\u0590-\u07ff",
        "\u0900-\u0fff",
        "\u3040-\u30ff",
        "\u3400-\u4dbf\u4e00-\u9fff",
        "\uac00-\ud7af",
        "\u2000-\u206f\u3000-\u303f\uff00-\uffef",
    )
)


def _table(**classes: str) -> bytes:
    """Build a translation of ASCII: a class's characters to its letter, others blank."""
    table = bytearray(b" " * 256)
    for letter, characters in classes.items():
        for character in characters:
            table[ord(character)] = ord(letter)
    return bytes(table)


_LOWER = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_CONTROL = bytes([*range(9), 11, 12, *range(14, 32), 127])
_TO_WORDS = _table(l=_LOWER, u=_LOWER.upper())
_TO_DIGITS = _table(d=_DIGITS)
_TO_BREAKS = _table(n="\n", r="\r")
_TO_MARKS = bytes(c if chr(c) in _PUNCTUATION else 32 for c in range(256))
_TO_SPACES = bytes(32 if c in b" \t" else 120 for c in range(256))


def family_of(model: str) -> str:
    """Return the family of tokenizers that a model's name tells of."""
    name = model[:100].rpartition("/")[2].lower()
    for prefix, family in _FAMILIES:
        if name.startswith(prefix):
            return family
    return _MODERN


def text_tokens(text: str, family: str = _MODERN) -> int:
    """Estimate the tokens of a text; at most its UTF-8 bytes, however odd it is."""
    length = len(text)
    if length <= _WHOLE:
        weight = _weigh(text, _WEIGHTS[family])
        return min(-(-weight // 1000), _utf8_length(text))
    middle = length // 2
    slices = (
        text[:_SLICE],
        text[middle - _SLICE // 2 : middle + _SLICE // 2],
        text[-_SLICE:],
    )
    dense = max(_weigh(part, _WEIGHTS[family]) for part in slices)
    return min(-(-dense * length // (_SLICE * 1000)), _utf8_length(text))


def quarter(text: str) -> int:
    """Guess as providers do: a token for every four characters."""
    return -(-len(text) // CHARS_PER_TOKEN)


def _utf8_length(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _weigh(text: str, weights: _Weights) -> int:
    """Return thousandths of a token."""
    total = 0
    if not text.isascii():
        total += _weigh_other("".join(_NON_ASCII.findall(text)), weights)
        text = _NON_ASCII.sub(" ", text)
    return total + _weigh_ascii(text.encode(), weights)


def _weigh_other(text: str, weights: _Weights) -> int:
    total = 0
    for form, weight in zip(_CLASSES, weights[9:17], strict=True):
        if not text:
            return total
        rest = form.sub("", text)
        total += (len(text) - len(rest)) * weight
        text = rest
    return total + _utf8_length(text) * weights[17]


def _weigh_ascii(data: bytes, weights: _Weights) -> int:
    word, longer, longest, case, digit, digits, line, mark, marks = weights[:9]
    cased = data.translate(_TO_WORDS)
    total = 0
    for length, count in Counter(map(len, cased.split())).items():
        one = word
        if length > 5:  # noqa: PLR2004 - the classes of the fit
            one += (min(length, 12) - 5) * longer + max(0, length - 12) * longest
        if length > _LONG_WORD:
            one += (length - _LONG_WORD) * 1000  # "aaaa…" is a token a letter
        total += one * count
    total += (cased.count(b"lu") + cased.count(b"uul")) * case
    runs = data.translate(_TO_DIGITS).split()
    total += len(runs) * digits + sum(map(len, runs)) * digit
    runs = data.translate(_TO_MARKS).split()
    total += len(runs) * marks + sum(map(len, runs)) * mark
    total += sum(_odd(run) for run in runs if len(run) > _LONG_PUNCTUATION)
    total += _weigh_blanks(data, line)
    return total


def _odd(run: bytes) -> int:
    """Return the floor of a long run of punctuation: a ruled line, or noise."""
    plain = len(set(run)) <= 2  # noqa: PLR2004 - such as =-=-=-
    return len(run) * 1000 // 32 if plain else len(run) * 600


def _weigh_blanks(data: bytes, line: int) -> int:
    runs = data.translate(_TO_BREAKS).split()
    total = len(runs) * line
    for run in runs:
        if len(run) > _LONG_NEWLINES:
            total += len(run) * (1000 if b"r" in run else 125)
    spaces = data.translate(_TO_SPACES).count(b" " * _LONG_SPACES)
    total += spaces * (_LONG_SPACES // 16) * 1000
    return total + (len(data) - len(data.translate(None, _CONTROL))) * 1000


_CARRIERS = ("role", "content", "output")  # what is counted apart, or not at all
_TEXTS = ("text", "input_text", "output_text")
_IMAGES = {"image_url", "input_image", "image", "computer_screenshot"}


@dataclasses.dataclass(slots=True, kw_only=True)
class Prompt:
    """What has been found in a prompt: its texts, and tokens that are no text.

    Reads content of any shape: a string, None, a list of parts, parts in parts. What it
    does not know is text, so that nothing goes uncounted.
    """

    texts: list[str] = dataclasses.field(default_factory=list)
    fixed: int = 0
    guessed: int = 0  # what providers guess for the texts, each rounded up

    def add(self, value: object) -> None:
        """Count a piece of the prompt."""
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self._text(one)
            elif isinstance(one, list):
                waiting.extend(reversed(one))
            elif isinstance(one, dict):
                text = one.get("text")
                if isinstance(text, str) and one.get("type") in _TEXTS:
                    self._text(text)
                else:
                    waiting.extend(reversed(self._part(one)))
            elif one is not None:
                self._text(str(one))

    def add_numbered(self, value: object) -> None:
        """Count texts that may be given as lists of token numbers."""
        if not isinstance(value, list):
            self.add(value)
        elif all(type(one) is int for one in value):
            self.fixed += len(value)
        else:
            for one in value:
                if isinstance(one, list) and all(type(x) is int for x in one):
                    self.fixed += len(one)
                else:
                    self.add(one)

    def tokens(self, family: str) -> int:
        """Return the estimate for all that was added."""
        text = " ".join(self.texts)
        return max(text_tokens(text, family), self.guessed) + self.fixed

    def _text(self, text: str) -> None:
        self.texts.append(text)
        self.guessed += quarter(text)

    def _part(self, part: dict[str, object]) -> list[object]:
        """Count one part; return what lies in it, still to be counted."""
        match part:
            case {"type": str(kind)} if kind in _IMAGES:
                self.fixed += _image(part)
                return []
            case {"type": "input_audio" | "audio"}:
                self.fixed += 1 + _data_length(part) // AUDIO_PER_TOKEN
                return []
            case {"type": "document", "source": {"type": "text" | "content"}}:
                return [part["source"], part.get("title"), part.get("context")]
            case {"type": "file" | "input_file" | "document"}:
                size = _data_length(part)
                self.fixed += max(DOCUMENT, size // BASE64_PER_TOKEN)
                return [part.get("title"), part.get("context")]
            case _:
                return self._written(part)

    def _written(self, part: dict[str, object]) -> list[object]:
        """Count a part as JSON, names and marks and all: so tools reach the model.

        Returns what it carries, still to be counted.
        """
        rest = {k: v for k, v in part.items() if k not in _CARRIERS}
        try:
            written = json.dumps(rest, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:  # deeper than it can be written: piece by piece
            return [*part, *part.values()]
        if rest:
            self._text(written)
        return [part.get("content"), part.get("output")]


def _image(part: dict[str, object]) -> int:
    inner = part.get("image_url")
    holder = inner if isinstance(inner, dict) else part
    match holder.get("detail"):
        case "low":
            return IMAGE_LOW
        case "original":
            return IMAGE_ORIGINAL
        case _:
            return IMAGE


def _data_length(part: dict[str, object]) -> int:
    """Return the length of the data in a part, wherever it is held."""
    longest = 0
    for holder in (part, *part.values()):
        if isinstance(holder, dict):
            for name in ("data", "file_data"):
                data = holder.get(name)
                if isinstance(data, str):
                    longest = max(longest, len(data))
    return longest
