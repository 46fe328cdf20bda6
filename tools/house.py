"""Set up the project's own Python: `.venv`, filled from a lock with hashes.

    python3 tools/house.py requirements/dev.txt

Needs Python 3.11 and its standard library, no more: where the system's Python comes
without ensurepip (Debian's does), pip is fetched from PyPI and checked against the hash
in `requirements/pip.txt`. Does nothing when the lock has not changed since.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv"
PYTHON = HOME / "bin" / "python"
PIP_LOCK = ROOT / "requirements" / "pip.txt"
INDEX = "https://pypi.org/simple/pip/"
WAIT_S = 60


def main(lock: Path) -> int:
    """Build or refresh the environment so that it holds what `lock` says."""
    if sys.version_info < (3, 11):  # noqa: UP036 - run by whatever python3 there is
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"Ratekeeper needs Python 3.11 or later; {sys.executable} is {found}.")
        print("Say which to take, for example: make demo PYTHON=python3.12")
        return 2
    wanted = _fingerprint(lock)
    stamp = HOME / f"{lock.stem}.stamp"
    if stamp.exists() and stamp.read_text() == wanted and PYTHON.exists():
        return 0
    if not _works():
        shutil.rmtree(HOME, ignore_errors=True)
        print(f"making {HOME.name} with Python {sys.version.split()[0]}", flush=True)
        _make()
    print(f"installing {lock.relative_to(ROOT)} from PyPI", flush=True)
    _pip("install", "--require-hashes", "--requirement", str(lock))
    _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    stamp.write_text(wanted)
    return 0


def _fingerprint(lock: Path) -> str:
    parts = [lock.read_bytes(), (ROOT / "pyproject.toml").read_bytes()]
    return hashlib.sha256(b"\0".join([*parts, sys.version.encode()])).hexdigest()


def _works() -> bool:
    """Say whether there is an environment of this very Python, with pip in it."""
    if not PYTHON.exists():
        return False
    ask = "import pip, sys; print(sys.version)"
    done = subprocess.run([PYTHON, "-c", ask], capture_output=True, text=True)
    return done.returncode == 0 and done.stdout.strip() == sys.version.strip()


def _make() -> None:
    try:
        import ensurepip  # noqa: F401 - Debian leaves it out of its python3
    except ImportError:
        venv.create(HOME, with_pip=False, symlinks=True)
        with tempfile.TemporaryDirectory() as folder:
            wheel = _fetch_pip(Path(folder))
            _run(str(wheel / "pip"), "install", "-qq", "--no-index", str(wheel))
    else:
        venv.create(HOME, with_pip=True, symlinks=True)


def _fetch_pip(folder: Path) -> Path:
    """Download pip's wheel, whose hash is in the lock: a wheel runs as it is."""
    lock = PIP_LOCK.read_text()
    version = re.search(r"^pip==(\S+)", lock, re.MULTILINE)
    known = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
    assert version is not None
    print(f"no ensurepip here: fetching pip {version[1]} from PyPI", flush=True)
    links = re.findall(r'href="([^"]+\.whl)(?:#[^"]*)?"', _get(INDEX).decode())
    wheel = folder / f"pip-{version[1]}-py3-none-any.whl"
    for link in links:
        if link.endswith(f"/{wheel.name}") or link == wheel.name:
            data = _get(urllib.parse.urljoin(INDEX, link))
            if hashlib.sha256(data).hexdigest() in known:
                wheel.write_bytes(data)
                return wheel
    message = f"PyPI has no {wheel.name} with a hash of {PIP_LOCK.name}"
    raise SystemExit(message)


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return bytes(answer.read())
    except OSError as error:
        message = f"cannot reach PyPI ({error}): check the network, proxy and CA files"
        raise SystemExit(message) from error


def _pip(*words: str) -> None:
    try:
        _run("-m", "pip", "-qq", "--disable-pip-version-check", *words)
    except SystemExit:
        print(
            "pip did not get what the lock names, as it says above. Check that "
            "pypi.org is in reach (network, proxy, CA files) and type the same again; "
            f"{HOME.name} is completed then."
        )
        raise


def _run(*words: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([PYTHON, *words], env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    sys.exit(main(ROOT / sys.argv[1]))
