"""Texts to count, read where they lie: none is kept here.

Documentation, code and translations of whatever is installed beside the benchmarks
(Python, Django, the SDKs), and this project's own documents. Cut into pieces of many
lengths by a seed, so that two runs on one machine count the same.
"""

from __future__ import annotations

import base64
import gettext
import importlib.metadata
import importlib.util
import json
import math
import random
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHORTEST, LONGEST = 200, 8000  # characters
MOST_OF_A_FILE = 60_000
LANGUAGES = {
    "Chinese": "zh_Hans",
    "Chinese, traditional": "zh_Hant",
    "Japanese": "ja",
    "Korean": "ko",
    "Russian": "ru",
    "Ukrainian": "uk",
    "Greek": "el",
    "German": "de",
    "French": "fr",
    "Spanish": "es",
    "Portuguese": "pt_BR",
    "Polish": "pl",
    "Turkish": "tr",
    "Vietnamese": "vi",
    "Arabic": "ar",
    "Hebrew": "he",
    "Persian": "fa",
    "Hindi": "hi",
    "Thai": "th",
}
# Pieces of a kind: what is sent most has the most weight.
PIECES = {"English": 300, "Python": 200, "JSON": 150, "Chinese": 150}
OTHERWISE = 60


def pieces(seed: int = 11) -> dict[str, list[str]]:
    """Return pieces of text by kind; a kind of which nothing is here is left out."""
    draws = random.Random(seed)
    texts = {
        "English": _english(),
        "Python": _files(Path(sysconfig.get_path("stdlib")), "*.py"),
        "JavaScript": _files(_package("django"), "contrib/**/*.js"),
        "HTML": _files(_package("django"), "**/*.html"),
        "C": _files(Path(sysconfig.get_path("include")), "**/*.h"),
        "JSON": _json(),
        "tables of numbers": _tables(draws),
        "base64 and hex": _noise(draws),
    }
    for language, code in LANGUAGES.items():
        texts[language] = _translations(code)
    texts["Chinese"] += _files(ROOT, "*.zh-CN.md") + _files(ROOT / "docs", "*.zh-CN.md")
    found = {}
    for kind, whole in texts.items():
        if cut := _cut(whole, PIECES.get(kind, OTHERWISE), draws):
            found[kind] = cut
    return found


def _cut(texts: list[str], count: int, draws: random.Random) -> list[str]:
    """Cut pieces, as many short ones as long ones, from where a line begins."""
    texts = [text for text in texts if len(text) > SHORTEST]
    if not texts:
        return []
    weights = [min(len(text), MOST_OF_A_FILE) for text in texts]
    found = []
    for text in draws.choices(texts, weights, k=count):
        length = round(
            math.exp(draws.uniform(math.log(SHORTEST), math.log(LONGEST + 1)))
        )
        at = draws.randrange(max(1, len(text) - length))
        at = text.rfind("\n", 0, at) + 1
        found.append(text[at : at + length])
    return found


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else ROOT / "absent"


def _files(folder: Path, pattern: str) -> list[str]:
    paths = sorted(folder.glob(pattern))[:1500]
    return [path.read_text("utf-8", "replace") for path in paths if path.is_file()]


def _english() -> list[str]:
    from pydoc_data import topics

    pages = (dist.read_text("METADATA") for dist in importlib.metadata.distributions())
    return [
        *topics.topics.values(),
        *sorted(page.partition("\n\n")[2] for page in pages if page),
        *_files(ROOT / "docs", "[a-z]*[a-z].md"),
    ]


def _json() -> list[str]:
    """Write out the schemas of OpenAI's types, as a tool's would be, and metadata."""
    from openai.types import chat, responses

    schemas = []
    for module in (chat, responses):
        for name in sorted(vars(module)):
            schema = getattr(vars(module)[name], "model_json_schema", None)
            if schema is not None:
                schemas.append(schema())
    dists = sorted(importlib.metadata.distributions(), key=lambda one: one.name)
    schemas += [{**one.metadata.json, "description": ""} for one in dists]
    return [json.dumps(one, separators=(",", ":")) for one in schemas] + [
        json.dumps(one, indent=2) for one in schemas
    ]


def _translations(code: str) -> list[str]:
    found = []
    for path in sorted(_package("django").glob(f"**/locale/{code}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined] # noqa: SLF001 - it has no list
        said = [text for asked, text in catalog.items() if asked and text != asked]
        found.append("\n".join(text for text in said if len(text) > 12))
    return ["\n".join(found)]


def _tables(draws: random.Random) -> list[str]:
    tables = []
    for _ in range(60):
        digits, columns = draws.randint(0, 5), draws.randint(2, 9)
        mark, spread = draws.choice([",", ", ", ";", "\t"]), 10 ** draws.randint(0, 6)
        rows = (
            mark.join(f"{draws.gauss(0, spread):.{digits}f}" for _ in range(columns))
            for _ in range(400)
        )
        tables.append("\n".join(rows))
    return tables


def _noise(draws: random.Random) -> list[str]:
    noise = [draws.randbytes(6000) for _ in range(20)]
    return [base64.b64encode(one).decode() for one in noise[:10]] + [
        one.hex() for one in noise[10:]
    ]
