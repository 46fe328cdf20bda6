"""The page about the gateway says what its config file is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from ratekeeper.config.load import load
from ratekeeper.config.model import Account, ClientKey, Config, Provider, Team
from ratekeeper.gateway import reply
from ratekeeper.gateway.reply import Fault
from ratekeeper.providers.facts import Dialect
from tests.docs.test_snippets import ROOT

PAGES = ("gateway.md", "gateway.zh-CN.md")
SHAPES = (Config, Provider, Account, Team, ClientKey)
_ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \|", re.MULTILINE)


def _tables(page: str) -> list[dict[str, str]]:
    """Return field and default of each row, table by table."""
    sections = (ROOT / "docs" / page).read_text().split("\n### ")[1:]
    return [dict(_ROW.findall(section)) for section in sections]


@pytest.mark.parametrize("page", PAGES)
def test_the_file_it_shows_loads(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text()
    path = tmp_path / "ratekeeper.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])

    assert ["search-web"] == [key.name for key in load(path).client_keys]


@pytest.mark.parametrize("page", PAGES)
def test_every_field_has_a_row(page: str) -> None:
    fields = [[field.name for field in msgspec.structs.fields(one)] for one in SHAPES]

    assert fields == [[*table] for table in _tables(page)]


@pytest.mark.parametrize("page", PAGES)
def test_every_reason_of_a_refusal_is_named_with_what_callers_read(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    told = {
        word: cells[1].strip("`")
        for cells in rows
        for word in re.findall(r"`(\w+)`", cells[0])
    }
    true = {
        fault.value: json.loads(answer.body)["error"]["code"]
        for fault in Fault
        for answer in [reply.answer(fault, "", Dialect.OPENAI, request_id="")]
    }

    assert true == {word: told.get(word) for word in true}


@pytest.mark.parametrize("page", PAGES)
def test_a_default_that_is_a_value_is_the_true_one(page: str) -> None:
    told = {
        (kind.__name__, name): default.strip("`")
        for kind, table in zip(SHAPES, _tables(page), strict=True)
        for name, default in table.items()
        if default.startswith("`") and name != "priority"  # unsaid is normal, at use
    }
    true = {
        (kind.__name__, field.name): str(field.default).replace("False", "false")
        for kind in SHAPES
        for field in msgspec.structs.fields(kind)
    }

    assert told == {at: true[at] for at in told}
    assert ("Config", "max_held") in told
