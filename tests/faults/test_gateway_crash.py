"""Errors that nobody foresaw, and crashes: they end what they must, and tell no secret."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.cli.running import Served, serve
from tests.faults.scripted import Asked, scripted
from tests.gateway import gates

PROMPT = "prompt-canary-8c1f"
SECRETS = (PROMPT, gates.SECRET, gates.UPSTREAM_KEY, gates.PEPPER)
CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:UPSTREAM_KEY", limits: [5000 rpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [1000 requests/day]}}
"""
# At SIGUSR1 that happens amid whatever the gateway does, to a call that it has.
START = textwrap.dedent("""
    import asyncio, ctypes, os, resource, signal, sys

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    secret = os.environ["UPSTREAM_KEY"]

    def fail(said):
        raise ValueError(f"no such thing: {said} in __PROMPT__")

    async def failing(said):
        fail(said)

    class Failing:
        def __del__(self):
            fail(secret)

    def happen(*_):
        loop = asyncio.get_running_loop()
        match "__WHAT__":
            case "callback":
                loop.call_soon(fail, secret)
            case "task":
                loop.create_task(failing(secret))
            case "end of an object":
                Failing()
            case "segmentation fault":
                ctypes.string_at(0)
            case "abort":
                os.abort()

    signal.signal(signal.SIGUSR1, happen)
    from ratekeeper.cli.main import main
    sys.argv[0] = "ratekeeper"
    main()
""")


@dataclasses.dataclass(frozen=True, slots=True)
class Amid:
    """A gateway that has a call on its way when it happens."""

    served: Served
    folder: Path
    go_on: threading.Event
    statuses: list[int]
    caller: threading.Thread

    def happen(self) -> None:
        """Let it happen."""
        self.served.process.send_signal(signal.SIGUSR1)

    def told(self) -> dict[str, list[str]]:
        """Return which files hold which secrets; where all is well, none does."""
        return {
            path.name: found
            for path in self.folder.iterdir()
            if (found := [one for one in SECRETS if one.encode() in path.read_bytes()])
        }


def ask(url: str) -> int:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}
    headers = {"authorization": f"Bearer {gates.SECRET}"}
    with contextlib.suppress(httpx2.HTTPError):
        url = f"{url}/v1/chat/completions"
        return httpx2.post(url, json=body, headers=headers, timeout=15).status_code
    return 0


@contextlib.contextmanager
def amid_a_call(folder: Path, what: str, **environ: str) -> Iterator[Amid]:
    """Start a gateway, and have a call on its way."""
    come, go_on = threading.Event(), threading.Event()

    def answer(sock: object, asked: Asked) -> bool:
        assert PROMPT.encode() in asked.body
        come.set()
        go_on.wait(10)
        sock.sendall(  # type: ignore[attr-defined]
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"content-length: 2\r\n\r\n{}"
        )
        return True

    start = START.replace("__WHAT__", what).replace("__PROMPT__", PROMPT)
    with scripted(answer) as upstream:
        text = CONFIG.format(url=upstream.url, hash=gates.digest())
        (folder / "ratekeeper.yaml").write_text(text)
        command = [sys.executable, "-c", start]
        said = {**gates.ENVIRON, **environ}
        with serve(folder, start=command, log=str(folder / "log"), **said) as served:
            statuses: list[int] = []
            url = served.facts["url"]
            caller = threading.Thread(target=lambda: statuses.append(ask(url)))
            caller.start()
            assert come.wait(10)
            yield Amid(served, folder, go_on, statuses, caller)
            go_on.set()
            caller.join()


@pytest.mark.parametrize("what", ["callback", "task", "end of an object"])
def test_an_error_that_nobody_foresaw_is_told_by_kind_and_place_alone(
    tmp_path: Path, what: str
) -> None:
    with amid_a_call(tmp_path, what) as it:
        it.happen()
        it.go_on.set()
        it.caller.join()
        after = ask(it.served.facts["url"])
        code, _, _ = it.served.end(signal.SIGTERM)
    log = (tmp_path / "log").read_text()

    assert ([200], 200, 0) == (it.statuses, after, code)
    assert "failed with ValueError" in log
    assert "in fail" in log
    assert {} == it.told()


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="no process may leave any"
)
@pytest.mark.parametrize(
    ("what", "number"),
    [("segmentation fault", signal.SIGSEGV), ("abort", signal.SIGABRT)],
)
@pytest.mark.parametrize("shows_where", ["", "1"])
def test_a_crash_leaves_neither_keys_nor_prompts_behind(
    tmp_path: Path, what: str, number: signal.Signals, shows_where: str
) -> None:
    """The image of its memory, which the system would write, holds all of them."""
    with amid_a_call(tmp_path, what, PYTHONFAULTHANDLER=shows_where) as it:
        it.happen()
        code = it.served.process.wait(10)
    log = (tmp_path / "log").read_text()

    assert -number == code
    assert [0] == it.statuses
    assert bool(shows_where) == ("Fatal Python error" in log)
    assert {} == it.told()
