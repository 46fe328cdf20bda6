"""Set up the SDKs for Node that tests run: what their lock says, from npm.

    .venv/bin/python tools/node.py

Where there is no Node 20 or later it says so, and those tests are skipped; where they
may not be (RATEKEEPER_TESTS_NEED names node) it fetches one from PyPI into `.venv`, by
the hashes in `requirements/node.txt`: Debian 12 has Node 18 alone, and npm there is 393
packages. Does nothing when the lock has not changed since.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "tests" / "gateway" / "node"
LOCK = HOME / "package-lock.json"
STAMP = HOME / "node_modules" / "lock.stamp"
OLDEST = 20
PLACES = os.pathsep.join([f"{sys.prefix}/bin", os.environ.get("PATH", "")])


def main() -> int:
    """Install what the lock says, or say what is missing."""
    if STAMP.exists() and STAMP.read_text() == LOCK.read_text() and _has_node():
        return 0
    needed = "node" in os.environ.get("RATEKEEPER_TESTS_NEED", "").split(",")
    if not _has_node():
        if not needed:
            print(f"NOT INSTALLED: SDKs for Node (there is no Node {OLDEST} here)")
            return 0
        _fetch()
    print("installing SDKs for Node from npm", flush=True)
    words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    npm = shutil.which("npm", path=PLACES) or "npm"
    environment = os.environ | {"PATH": PLACES}
    if subprocess.run([npm, *words], cwd=HOME, env=environment).returncode:
        print("NOT INSTALLED: SDKs for Node (npm has failed)")
        return int(needed)
    STAMP.write_text(LOCK.read_text())
    return 0


def _has_node() -> bool:
    node = shutil.which("node", path=PLACES)
    if node is None or shutil.which("npm", path=PLACES) is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return major.isdigit() and int(major) >= OLDEST


def _fetch() -> None:
    print("fetching Node from PyPI", flush=True)
    lock = ROOT / "requirements" / "node.txt"
    words = ["install", "-qq", "--require-hashes", "--requirement", str(lock)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
