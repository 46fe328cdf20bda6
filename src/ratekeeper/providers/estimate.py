"""Token estimates: what a prompt will come to, before anybody has counted it.

Texts are weighed by classes of characters (`classes`), with weights fitted per family
of tokenizers (`weights`). The result is never above the text's UTF-8 bytes, which no
tokenizer exceeds; a prompt's is never below a quarter of its characters, which is how
providers guess. It refuses to know vocabularies, and the whole of a very long text.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from operator import mul
from typing import TYPE_CHECKING, NamedTuple

from ratekeeper.providers import classes
from ratekeeper.providers.facts import Estimate
from ratekeeper.providers.images import image_tokens
from ratekeeper.providers.weights import MODELS, MODERN, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PER_MESSAGE = 7  # Claude frames a single message in 6 to 7; OpenAI in 3, and 3 for all
PER_TOOL = 10
ANY_TOOLS = 400  # the hidden prompt that comes with tools: 389 in Anthropic's example
DOCUMENT = 3000  # a page, as Anthropic counts the densest
BASE64_PER_TOKEN = 16  # of a document: some 50 KB and 3,000 tokens a page
AUDIO_PER_TOKEN = 400  # 10 tokens a second; base64 of 24 kbit/s speech, the thinnest
CHARS_PER_TOKEN = 4  # how providers guess at admission
EXACT_MARGIN = 105  # of exact counts: a chat's template, a vocabulary's next version

_WHOLE = 256 * 1024  # characters looked at; above, three slices stand for all
_SLICE = 64 * 1024
_LONGEST_NAME = 100
_UNSEEN = 4  # times a prompt, at most, with what is not seen: no ratio learned is above


# Exact counters, by family, for those who have the vocabularies; none unless asked for:
# `client.tokens` knows where to get them.
EXACT: dict[str, Callable[[Sequence[str]], int]] = {}


def family_of(model: str) -> str:
    """Return the family of tokenizers that a model's name tells of."""
    return _family(model[:_LONGEST_NAME])


@functools.lru_cache(maxsize=1024)
def _family(model: str) -> str:
    name = model.rpartition("/")[2].lower()
    for form, family in MODELS:
        if form.match(name):
            return family
    return MODERN


def text_tokens(text: str, family: str = MODERN) -> int:
    """Estimate the tokens of a text; at most its UTF-8 bytes, however odd it is."""
    return measure(text, family).tokens


class Measure(NamedTuple):
    """What a text comes to, how much of it by odd runs, its script and its bytes."""

    tokens: int
    odd: int
    script: str
    utf8_bytes: int


def measure(text: str, family: str = MODERN) -> Measure:
    """Estimate the tokens of a text, and say what kind of text it is."""
    weights = WEIGHTS[family]
    length = len(text)
    if length <= _WHOLE:
        counts = classes.count(text)
        weight, most = sum(map(mul, counts.each, weights)), counts.utf8_bytes
        odd = counts.each[0]
    else:
        middle = length // 2 - _SLICE // 2
        slices = (text[:_SLICE], text[middle : middle + _SLICE], text[-_SLICE:])
        dense, counts = max(
            (sum(map(mul, one.each, weights)), one)
            for one in map(classes.count, slices)
        )
        weight = dense * length // _SLICE
        odd = counts.each[0] * length // _SLICE
        most = _utf8_bytes(text)
    return Measure(
        min(-(-weight // 1000), most),
        min(-(-odd // 1000), most),
        classes.script(counts),
        most,
    )


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def quarter(text: str) -> int:
    """Guess as providers do: a token for every four characters."""
    return -(-len(text) // CHARS_PER_TOKEN)


_WRITER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_CARRIERS = ("role", "content", "output")  # what is counted apart, or not at all
_TEXTS = ("text", "input_text", "output_text")
_IMAGES = {"image_url", "input_image", "image", "computer_screenshot"}


@dataclasses.dataclass(slots=True, kw_only=True)
class Prompt:
    """What has been found in a prompt: its texts, and tokens that are no text.

    Reads content of any shape: a string, None, a list of parts, parts in parts. What it
    does not know is text, so that nothing goes uncounted. `model` tells what an image
    comes to. `tools` are how many tools go with it; `unseen` says that the provider
    adds what it keeps, such as the conversation so far.
    """

    model: str = ""
    texts: list[str] = dataclasses.field(default_factory=list, repr=False)
    fixed: int = 0
    guessed: int = 0  # what providers guess for the texts, each rounded up
    tools: int = 0
    unseen: bool = False

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

    def estimate(self, *, frame: int = 0, margin: int = 100) -> Estimate:
        """Return the estimate for all that was added; the count, where one is had.

        `frame` is what messages add, `margin` what an estimate is raised to, in %.
        """
        family = family_of(self.model)
        count = EXACT and EXACT.get(family)
        if count and sum(map(len, self.texts)) <= _WHOLE:
            found = Measure(
                count(self.texts), 0, "exact", sum(map(_utf8_bytes, self.texts))
            )
            margin = min(margin, EXACT_MARGIN)
        else:
            found = measure(" ".join(self.texts), family)
        most = found.utf8_bytes
        if self.unseen:
            most = max(most, found.tokens * _UNSEEN)
        script = found.script
        if self.tools:
            script += " tools"
        if self.unseen:
            script += " unseen"
        return Estimate(
            family=self.model if family == MODERN else family,
            script=script,
            text=found.tokens,
            least=min(max(self.guessed, found.odd), most),
            most=most,
            frame=frame + PER_TOOL * self.tools,
            parts=self.fixed,
            margin=margin,
        )

    def _text(self, text: str) -> None:
        self.texts.append(text)
        self.guessed += quarter(text)

    def _part(self, part: dict[str, object]) -> list[object]:
        """Count one part; return what lies in it, still to be counted."""
        if "type" not in part:
            return self._written(part)
        match part:
            case {"type": str(kind)} if kind in _IMAGES:
                self.fixed += _image(part, self.model)
                return []
            case {"type": "input_audio" | "audio"}:
                self.fixed += 1 + _data_length(part) // AUDIO_PER_TOKEN
                return []
            case {"type": "document", "source": {"type": "text" | "content"}}:
                return [part["source"], part.get("title"), part.get("context")]
            case {"type": "file" | "input_file" | "document" | "video"}:
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
        if rest:
            try:
                self._text(_WRITER.encode(rest))
            except RecursionError:  # deeper than it can be written: piece by piece
                return [*part, *part.values()]
        return [part.get("content"), part.get("output")]


def _image(part: dict[str, object], model: str) -> int:
    """Find the data of an image, wherever it is held, and its detail."""
    inner = part.get("image_url")
    holder = inner if isinstance(inner, dict) else part
    data = holder.get("url", inner)
    if not isinstance(data, str):
        source = part.get("source")
        data = (source if isinstance(source, dict) else part).get("data")
    if not isinstance(data, str) or data.startswith("http"):
        data = None
    return image_tokens(data, holder.get("detail"), model, family_of(model))


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
