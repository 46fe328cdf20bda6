"""A real gateway on a disk that is full, or breaks down: it goes on, but for budgets."""

from __future__ import annotations

import contextlib
import dataclasses
import os
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

from tests.cli.running import Served, serve
from tests.faults.kept import OUTAGE_S, on_disk, settled
from tests.gateway import gates

FREE = "rk-" + "f" * 43  # a key without any limit that is kept
A_MEGABYTE = "-t", "tmpfs", "-o", "size=1m", "none"
CONFIG = """\
providers:
  openai:
    base_url: {url}
    accounts: [{{api_key: "env:UPSTREAM_KEY", limits: [5000 rpm]}}]
client_keys:
  - {{name: app, hash: "{app}", limits: [1000 requests/day], max_wait: 0s}}
  - {{name: free, hash: "{free}", limits: [1000 rpm]}}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Callers:
    """A gateway in a process of its own, and a client that calls it."""

    served: Served
    file: Path
    client: httpx2.Client

    def ask(self, key: str = gates.SECRET) -> int:
        """Call once; return the status."""
        body = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
        headers = {"authorization": f"Bearer {key}"}
        answer = self.client.post("/v1/chat/completions", json=body, headers=headers)
        return answer.status_code

    def ask_for(self, seconds: float) -> list[int]:
        """Call again and again for so long."""
        end = time.monotonic() + seconds
        found = []
        while time.monotonic() < end:
            found.append(self.ask())
        return found

    def ask_until(self, status: int, within_s: float = 10.0) -> list[int]:
        """Call until that is answered, or time is up."""
        end = time.monotonic() + within_s
        found = [self.ask()]
        while found[-1] != status and time.monotonic() < end:
            found.append(self.ask())
        return found


@contextlib.contextmanager
def running(folder: Path, disk: Path) -> Iterator[Callers]:
    """Run a gateway over a file on that disk."""
    file = disk / "ratekeeper.db"
    with gates.behind() as upstream:
        terms = {"app": gates.digest(), "free": gates.digest(FREE)}
        text = CONFIG.format(url=upstream.url, **terms)
        (folder / "ratekeeper.yaml").write_text(text)
        with (
            serve(folder, "--store", f"sqlite:///{file}", **gates.ENVIRON) as served,
            httpx2.Client(base_url=served.facts["url"], timeout=15) as client,
        ):
            yield Callers(served, file, client)


@contextlib.contextmanager
def mounted(folder: Path, *what: str) -> Iterator[Path]:
    """Mount a disk there, where this user may."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", *what, str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this user may mount no such disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux alone has it")
def test_a_disk_without_room_is_told_and_got_over(tmp_path: Path) -> None:
    with running(tmp_path, tmp_path) as it:
        pid = it.served.process.pid
        before = it.ask()
        assert settled(it.file, 1)
        bounds = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, bounds[1]))
        full = it.ask_for(OUTAGE_S)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, bounds)
        after = it.ask_until(200)
        code, _, err = it.served.end(signal.SIGTERM)

    assert (200, {503}, 200) == (before, set(full), after[-1])
    assert 0 == code
    assert 1 == err.count("will be tried again")
    assert 1 == err.count("nothing was lost")
    assert 2 == on_disk(it.file)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", 0) as file:
        while file.write(b"x" * 4096):
            pass


@contextlib.contextmanager
def read(file: Path) -> Iterator[None]:
    """Read in it all the while, so that its log cannot begin anew and needs room."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM used").fetchone()
        yield


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_a_real_disk_that_is_full_is_told_and_got_over(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", *A_MEGABYTE) as disk,
        running(tmp_path, disk) as it,
    ):
        before = it.ask()
        with read(it.file):
            fill(disk)
            filling = it.ask_until(503)
            refused = [it.ask() for _ in range(5)]
            free = [it.ask(FREE) for _ in range(5)]
            (disk / "filler").unlink()
        after = it.ask_until(200)
        code, _, err = it.served.end(signal.SIGTERM)
        kept = on_disk(it.file)

    assert (200, 200) == (before, after[-1])
    assert [503] * 5 == refused
    assert [200] * 5 == free
    assert 1 + filling.count(200) + 1 == kept
    assert 0 == code
    assert "will be tried again" in err
    assert "nothing was lost" in err


def break_down(disk: Path) -> None:
    """Have the kernel find an error on it, after which it may only be read.

    What it had not written yet is lost, as in a power cut: that is not what is tried.
    """
    for path in disk.glob("ratekeeper.db*"):
        with path.open("rb") as file:
            os.fsync(file)
    device = os.lstat(disk).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    trigger = Path(f"/sys/fs/ext4/{name}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip("this kernel lets no disk break down")
    trigger.write_text("1")
    with pytest.raises(OSError, match="Read-only"):
        (disk / "probe").touch()


@pytest.mark.slow
@pytest.mark.skipif(
    None in {shutil.which("mount"), shutil.which("mkfs.ext4")},
    reason="needs mount and mkfs.ext4",
)
def test_a_real_disk_that_breaks_down_ends_nothing_but_budgets(tmp_path: Path) -> None:
    """ext4 is then mounted read-only, under the open file."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    what = "-o", "loop,errors=remount-ro", str(image)
    with (
        mounted(tmp_path / "disk", *what) as disk,
        running(tmp_path, disk) as it,
    ):
        before = [it.ask(), it.ask()]
        assert settled(it.file, 2)
        break_down(disk)
        refused = it.ask_for(OUTAGE_S)
        free = [it.ask(FREE) for _ in range(5)]
        code, _, err = it.served.end(signal.SIGTERM)
    subprocess.run(["e2fsck", "-fy", str(image)], capture_output=True, check=False)
    with mounted(disk, *what):
        kept = on_disk(it.file)

    assert [200, 200] == before
    assert ({503}, [200] * 5) == (set(refused), free)
    assert 1 == code  # what the others spent is not written
    assert 1 == err.count("will be tried again")
    assert "Traceback" not in err
    assert 2 == kept
