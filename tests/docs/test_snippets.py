"""Every snippet of the README and the docs runs, alone, and prints what it says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ratekeeper.simulator.server import Simulator, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)\)")


def _blocks(kind: str) -> list[object]:
    return [
        pytest.param(
            match[2],
            id=f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}",
        )
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text())
        if match[1] == kind
    ]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What a user has set: keys, and here base URLs of simulated providers."""
    openai = Simulator("openai", ["500 rpm", "1M tpm"])
    anthropic = Simulator("anthropic", ["500 rpm", "1M tpm"])
    with serving(openai) as openai_url, serving(anthropic) as anthropic_url:
        yield {
            **os.environ,
            "OPENAI_API_KEY": "sk-simulated-0123456789abcdef",
            "OPENAI_BASE_URL": openai_url,
            "ANTHROPIC_API_KEY": "sk-ant-simulated-0123456789abcdef",
            "ANTHROPIC_BASE_URL": anthropic_url,
        }


@pytest.mark.parametrize("snippet", _blocks("python"))
def test_a_python_snippet_runs_alone(
    snippet: str, environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", snippet],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    "session", [s for s in _blocks("console") if "\n" in s.values[0].strip()]
)  # type: ignore[attr-defined]
def test_a_shown_session_prints_what_it_shows(
    session: str, environment: dict[str, str]
) -> None:
    command, _, shown = session.partition("\n")
    if not command.startswith("$ ratekeeper"):
        pytest.skip("a list of commands, not a session")
    words = shlex.split(command.removeprefix("$ "))
    tool = Path(sys.executable).parent / words[0]
    done = subprocess.run(
        [tool, *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=15,
    )

    assert shown.strip() == (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    targets = [page.parent / link for link in _LINK.findall(page.read_text())]

    assert [] == [str(target) for target in targets if not target.exists()]


@pytest.mark.parametrize(
    "chinese", [p for p in PAGES if p.name.endswith(".zh-CN.md")], ids=lambda p: p.name
)
def test_the_chinese_page_has_the_shape_of_the_english_one(chinese: Path) -> None:
    english = chinese.with_name(chinese.name.replace(".zh-CN", ""))

    def shape(page: Path) -> list[str]:
        lines = page.read_text().splitlines()
        return [
            line[:2] for line in lines if line.startswith(("#", "|", "```", "- ", "$"))
        ]

    assert shape(english) == shape(chinese)
