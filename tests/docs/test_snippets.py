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
from _pytest.mark.structures import ParameterSet

from ratekeeper.cli.main import COMMANDS
from ratekeeper.config.load import load
from ratekeeper.config.model import Config
from ratekeeper.simulator.server import Simulator, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)\)")
_SERVED = "$ ratekeeper serve\n"


def _blocks(kind: str, *, shown: str = "", but: str = "\0") -> list[ParameterSet]:
    """Find the blocks of a kind, each named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in _BLOCK.finditer(text):
            block, is_kind = match[2], match[1] == kind
            if is_kind and block.startswith(shown) and not block.startswith(but):
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(block, id=f"{page.name}:{line}"))
    return found


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """What a user has set: keys, and here base URLs of simulated providers."""
    openai = Simulator("openai", ["500 rpm", "1M tpm"])
    anthropic = Simulator("anthropic", ["500 rpm", "1M tpm"])
    with serving(openai) as openai_url, serving(anthropic) as anthropic_url:
        yield {
            **{k: v for k, v in os.environ.items() if k != "HOLYSHEEP_API_KEY"},
            "OPENAI_API_KEY": "sk-simulated-" + "0123456789abcdef" * 3,
            "OPENAI_BASE_URL": openai_url,
            "ANTHROPIC_API_KEY": "sk-ant-simulated-" + "0123456789abcdef" * 6,
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
    "session", _blocks("console", shown="$ ratekeeper", but=_SERVED)
)
def test_a_shown_session_prints_what_it_shows(
    session: str, environment: dict[str, str]
) -> None:
    command, _, shown = session.partition("\n")
    if not shown.strip():
        assert shlex.split(command)[2] in COMMANDS
        return
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


@pytest.mark.parametrize("session", _blocks("console", shown=_SERVED))
def test_the_gateway_greets_as_shown(session: str, tmp_path: Path) -> None:
    shown = session.removeprefix(_SERVED).strip("\n").splitlines()
    tool = Path(sys.executable).parent / "ratekeeper"
    kept = ("PATH", "PYTHONPATH")
    with subprocess.Popen(
        [tool, "serve", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={name: os.environ[name] for name in kept if name in os.environ},
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().rstrip("\n") for _ in shown]
        finally:
            process.terminate()
    plain = re.sub(r"(127\.0\.0\.1):\d+", r"\1:8080", "\n".join(lines))

    assert shown == re.sub(r"rk-[\w-]{43}", "rk-…", plain).splitlines()


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_a_shown_config_loads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ratekeeper.yaml"
    path.write_text(text)

    assert Config() != load(path)


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
