"""The gateway's file locked, removed, or without room: nobody spends what is not kept."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.cli.running import Served, serve, simulate
from tests.gateway import gates
from tests.gateway.gates import Behind, Gate, account, behind, client_key, gate

OPENAI = "sk-test-0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def upstream() -> Iterator[Behind]:
    with behind() as it:
        yield it


@pytest.fixture
def it(tmp_path: Path, upstream: Behind) -> Iterator[Gate]:
    keys = [client_key(limits=["100 requests/day"]), client_key("free", FREE)]
    with gate(gates.config(tmp_path, {"openai": account(upstream.url)}, keys)) as it:
        yield it


FREE = "rk-" + "f" * 43  # a key without any limit that is kept


def recovered(it: Gate) -> bool:
    until = time.monotonic() + 5
    with it.client() as client:
        while time.monotonic() < until:
            if it.chat(client).status_code == 200:
                return True
            time.sleep(0.05)
    return False


def on_disk(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        (amount,) = connection.execute("SELECT sum(amount) FROM used").fetchone()
    finally:
        connection.close()
    return int(amount)


def test_a_file_that_another_holds_stops_calls_under_budgets_and_no_others(
    tmp_path: Path, it: Gate, upstream: Behind
) -> None:
    path = tmp_path / "ratekeeper.db"
    with it.client() as client, it.client(FREE) as free:
        assert 200 == it.chat(client).status_code
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused = [it.chat(client) for _ in range(5)]
        slowest = 0.0
        for _ in range(50):
            begun = time.monotonic()
            assert 200 == it.chat(free).status_code
            slowest = max(slowest, time.monotonic() - begun)
        other.execute("ROLLBACK")
        other.close()
    seen = upstream.requests

    assert {503} == {answer.status_code for answer in refused}
    assert "ratekeeper.db" not in refused[0].text
    assert "1" == refused[0].headers["retry-after"]
    assert 51 == seen
    assert slowest < 0.25  # nobody else stands still for it
    assert recovered(it)


def test_a_file_that_is_removed_is_told_and_nothing_is_spent_beside_it(
    tmp_path: Path, it: Gate, upstream: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ratekeeper.db"
    with it.client() as client:
        assert 200 == it.chat(client).status_code
        path.rename(tmp_path / "elsewhere")
        removed = it.chat(client).status_code
        path.touch()
        replaced = it.chat(client).status_code
        path.unlink()
        (tmp_path / "elsewhere").rename(path)

    assert (503, 503) == (removed, replaced)
    assert 1 == upstream.requests
    assert "ratekeeper.db cannot be used" in caplog.text
    assert recovered(it)
    assert 2 == upstream.requests
    time.sleep(0.2)
    assert 2 == on_disk(path)


CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:OPENAI_API_KEY", limits: [5000 rpm]}}]
client_keys:
  - {{name: app, hash: "{hash}", limits: [1000 requests/day], max_wait: 0s}}
"""


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux alone has it")
def test_a_disk_without_room_is_told_and_got_over(tmp_path: Path) -> None:
    file = tmp_path / "ratekeeper.yaml"
    environ = {"OPENAI_API_KEY": OPENAI, "RATEKEEPER_SECRET": gates.PEPPER}
    with simulate("openai", "--json") as provider:
        file.write_text(
            CONFIG.format(url=provider.facts["base_url"], hash=gates.digest())
        )
        with serve(tmp_path, **environ) as served:
            pid = served.process.pid
            headers = {"authorization": f"Bearer {gates.SECRET}"}
            url = f"{served.facts['url']}/v1/chat/completions"
            body = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}

            def call() -> int:
                return httpx2.post(url, headers=headers, json=body).status_code

            before = call()
            bounds = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, bounds[1]))
            full = [call() for _ in range(3)]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, bounds)
            until = time.monotonic() + 5
            while (after := call()) != 200 and time.monotonic() < until:
                time.sleep(0.05)
            code, _, err = served.end(signal.SIGTERM)
    kept = on_disk(tmp_path / "ratekeeper.db")

    assert (200, [503, 503, 503], 200) == (before, full, after)
    assert 0 == code
    assert "will be tried again" in err
    assert "nothing was lost" in err
    assert 2 == kept


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Mount a disk of a megabyte there, where this user may."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("this user may mount no disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_real_disk_that_is_full_is_told_and_got_over(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    environ = {"OPENAI_API_KEY": OPENAI, "RATEKEEPER_SECRET": gates.PEPPER}
    other = f'  - {{name: free, hash: "{gates.digest(FREE)}", limits: [1000 rpm]}}\n'
    with mounted(disk), simulate("openai", "--json") as provider:
        terms = {"url": provider.facts["base_url"], "hash": gates.digest()}
        (tmp_path / "ratekeeper.yaml").write_text(CONFIG.format(**terms) + other)
        store = f"sqlite:///{disk / 'ratekeeper.db'}"
        with serve(tmp_path, "--store", store, **environ) as served:
            before = asked(served, 1)
            fill(disk)
            refused, free = asked(served, 20), asked(served, 5, FREE)
            (disk / "filler").unlink()
            until = time.monotonic() + 5
            while (after := asked(served, 1)) != [200] and time.monotonic() < until:
                time.sleep(0.05)
            code, _, err = served.end(signal.SIGTERM)
        kept = on_disk(disk / "ratekeeper.db")

    sent = 2 + refused.count(200)
    assert ([200], [200]) == (before, after)
    assert {503} == {*refused[-5:]}
    assert [200] * 5 == free
    assert sent == kept
    assert 0 == code
    assert "will be tried again" in err
    assert "nothing was lost" in err


def asked(served: Served, many: int, key: str = gates.SECRET) -> list[int]:
    """Call so often, one after another; return the statuses."""
    url = f"{served.facts['url']}/v1/chat/completions"
    body = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
    headers = {"authorization": f"Bearer {key}"}
    return [
        httpx2.post(url, headers=headers, json=body).status_code for _ in range(many)
    ]


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", 0) as file:
        while file.write(b"x" * 4096):
            pass
