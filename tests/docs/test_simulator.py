"""The page about the simulator says what the simulator is."""

from __future__ import annotations

import dataclasses

import pytest

from ratekeeper.simulator.cues import Cue
from ratekeeper.simulator.dialect import Trouble
from ratekeeper.simulator.dialects import KNOWN, find_dialect
from tests.docs.test_snippets import ROOT

PAGES = ("simulator.md", "simulator.zh-CN.md")


@pytest.mark.parametrize("page", PAGES)
def test_every_provider_has_a_row_with_its_path_and_its_usual_limits(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    rows = [
        line.split(" | ")[:3] for line in text.splitlines() if line.startswith("| `")
    ]
    told = {row[0].strip("| `"): tuple(row[1:]) for row in rows}
    true = {
        name: (f"`{one.base_path or '/'}`", ", ".join(one.usual_limits))
        for name in KNOWN
        for one in [find_dialect(name)]
    }

    assert true == {name: row for name, row in told.items() if name in KNOWN}


@pytest.mark.parametrize("page", PAGES)
def test_every_cue_and_every_reason_is_named(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    fields = [field.name.removesuffix("_us") for field in dataclasses.fields(Cue)]
    cues = [name.replace("_", "-") for name in fields]

    assert [] == [cue for cue in cues if f"`{cue}" not in text]
    assert [] == [reason for reason in Trouble if reason not in text]
