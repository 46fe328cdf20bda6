"""Set up `.venv-peers`: Ratekeeper beside the libraries it is measured against.

    .venv/bin/python tools/peers.py

Takes the newest Python from 3.12 on that there is (two of the peers want it), else the
one it runs under. Everything comes from `requirements/peers.txt`, by hash; a peer that
does not install is named and left out. Does nothing when the lock has not changed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-peers"
PYTHON = HOME / "bin" / "python"
LOCK = ROOT / "requirements" / "peers.txt"
STAMP = HOME / "peers.stamp"
NEWEST, OLDEST = 20, 12  # minor versions of Python 3 looked for


def main() -> int:
    """Build or refresh the environment."""
    wanted = _fingerprint()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    python = _newest()
    shutil.rmtree(HOME, ignore_errors=True)
    print(f"making {HOME.name} with {python}", flush=True)
    subprocess.run([python, "-m", "venv", "--without-pip", HOME], check=True)
    if not _pip("--require-hashes", "--requirement", str(LOCK)):
        _one_by_one()
    _pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    STAMP.write_text(wanted)
    return 0


def _fingerprint() -> str:
    return hashlib.sha256(LOCK.read_bytes() + str(HOME).encode()).hexdigest()


def _newest() -> str:
    """Find the newest Python from 3.12 on that runs and can make environments."""
    kept = Path.home() / ".pyenv" / "versions"
    for minor in range(NEWEST, OLDEST - 1, -1):
        named = shutil.which(f"python3.{minor}")
        found = sorted(kept.glob(f"3.{minor}.*/bin/python"), reverse=True)
        for path in [*map(str, found), *([named] if named else [])]:
            if _is_fit(path):
                return path
    print("no Python 3.12 or later here: what wants it is left out", flush=True)
    return sys.executable


def _is_fit(path: str) -> bool:
    """Say whether it runs: a shim may name a version that is not installed."""
    ask = "import ssl, venv, zlib"
    return subprocess.run([path, "-c", ask], capture_output=True).returncode == 0


def _one_by_one() -> None:
    """Install each entry of the lock by itself, so that one keeps out no other.

    A peer that then lacks something is named by the benchmark that cannot import it.
    """
    entries = re.split(r"\n(?=\S)", LOCK.read_text().strip())
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        for entry in entries:
            one.write_text(entry + "\n")
            if not _pip("--require-hashes", "--no-deps", "--requirement", str(one)):
                print(f"NOT INSTALLED: {entry.split(' ')[0]}", flush=True)


def _pip(*words: str) -> bool:
    """Install with the pip of the interpreter that runs this."""
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "-qq"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [*pip, "--disable-pip-version-check", "install", *words]
    return subprocess.run(command, env=environment).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
