"""curl through the gateway: the lines that are shown, and the ways to send a key."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.cli.running import START
from tests.gateway import gates
from tests.gateway.sdks import stage
from tests.gateway.sdks.provider import MODEL
from tests.gateway.sdks.stage import Stage

ROOT = Path(__file__).parents[2]
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": MODEL, "max_tokens": 9, "messages": MESSAGES}
BEARER = ("-H", "authorization: Bearer KEY")
JSON = ("-H", "content-type: application/json", "-d")
GEMINI = ("-H", "x-goog-api-client: curl", *JSON, '{"contents": [{"parts": [{}]}]}')


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage.stage(tmp_path_factory.mktemp("curl")) as running:
        yield running


def curl(*words: str) -> str:
    """Return what curl prints; raises where the answer is an error."""
    command = [needs.need("curl"), "-sS", "--fail-with-body", "--max-time", "10"]
    return subprocess.check_output([*command, *words], text=True)


def shell(line: str, **environ: str) -> str:
    """Return what a line prints, as a shell runs it."""
    needs.need("curl")
    kept = {"PATH": os.environ["PATH"]}
    return subprocess.check_output(
        ["sh", "-c", line], text=True, stderr=subprocess.DEVNULL, env=kept | environ
    )


@pytest.mark.parametrize("stream", [False, True])
def test_it_gets_the_very_bytes_that_it_gets_straight(it: Stage, stream: bool) -> None:
    words = ("-N", *JSON, json.dumps({**CHAT, "stream": stream}))
    straight, through = (
        curl(f"{url}/v1/chat/completions", "-H", f"authorization: Bearer {key}", *words)
        for url, key in (
            (it.straight, gates.UPSTREAM_KEY),
            (it.through, gates.SECRET),
        )
    )

    assert straight == through
    assert MODEL in through


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/chat/completions", (*JSON, json.dumps(CHAT), "-H", "api-key: KEY")),
        ("/v1/messages", (*JSON, json.dumps(CHAT), "-H", "x-api-key: KEY")),
        (
            "/anthropic/v1/messages",
            (*JSON, json.dumps(CHAT), *BEARER),
        ),
        (f"/gemini/v1beta/models/{MODEL}:generateContent?key=KEY", GEMINI),
        (
            f"/gemini/v1beta/models/{MODEL}:generateContent",
            (*GEMINI, "-H", "x-goog-api-key: KEY"),
        ),
        ("/v1/models", BEARER),
        (
            "/v1/files",
            (
                "-H",
                "authorization: Bearer KEY",
                "-F",
                "purpose=batch",
                "-F",
                f"file=@{__file__}",
            ),
        ),
    ],
)
def test_it_sends_its_key_where_each_api_has_it(
    it: Stage, path: str, words: tuple[str, ...]
) -> None:
    said = [word.replace("KEY", gates.SECRET) for word in (path, *words)]

    assert json.loads(curl(it.through + said[0], *said[1:]))


def test_the_line_that_serve_prints_works_in_a_shell(tmp_path: Path) -> None:
    kept = {k: os.environ[k] for k in ("PATH", "PYTHONPATH") if k in os.environ}
    with subprocess.Popen(
        [*START, "serve", "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        env=kept,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = next(one for one in process.stdout if one.startswith("  curl"))
            reply = json.loads(shell(line))
        finally:
            process.terminate()

    assert "assistant" == reply["choices"][0]["message"]["role"]


@pytest.mark.parametrize("page", ["gateway.md", "gateway.zh-CN.md"])
def test_the_lines_of_the_desk_work_in_a_shell(it: Stage, page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    acquire, settle = re.findall(r"^curl \$URL.*$", text, re.MULTILINE)
    environ = {"URL": it.through, "KEY": gates.SECRET}
    model = acquire.replace("gpt-4o", MODEL)
    grant: dict[str, Any] = json.loads(shell(model, **environ))
    settled = json.loads(shell(settle.replace("grant_…", grant["grant"]), **environ))

    assert {"settled": True} == settled
