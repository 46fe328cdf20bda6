"""Ratekeeper with every limit on: `ratekeeper serve` and a file, all else as it comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gateways import prompts
from benchmarks.gateways.peer import SECRET, Launch
from benchmarks.gateways.process import OURS, python

if TYPE_CHECKING:
    from benchmarks.gateways.peer import Limits, Place

COMMAND = str(Path(sys.executable).parent / "ratekeeper")
MANY = "1_000_000"  # dollars a day


class Ratekeeper:
    """Its row."""

    def __init__(self, name: str = "Ratekeeper", *, sampled: bool = False) -> None:
        self.name = name
        self._command = python("benchmarks.gateways.sampled") if sampled else [COMMAND]

    def missing(self) -> str:
        return ""

    def launch(self, place: Place, limits: Limits) -> Launch:
        file = place.folder / "ratekeeper.yaml"
        store = f"sqlite:///{place.folder / 'ratekeeper.db'}"
        config = _config(place, limits)
        file.write_text(json.dumps(config | {"store": store}))  # which is YAML too
        names = [f"caller-{number}" for number in range(place.keys)]
        secrets = [_create(name, limits, file) for name in names]
        return Launch(
            argv=[*self._command, "serve", "-c", str(file)],
            callers=[{"authorization": f"Bearer {secret}"} for secret in secrets],
            env=OURS | {"OPENAI_API_KEY": SECRET},
        )


def _config(place: Place, limits: Limits) -> dict[str, Any]:
    account = ["100M rpm", "100B tpm", "100k concurrent", f"${MANY}/day"]
    return {
        "listen": f"127.0.0.1:{place.port}",
        "max_wait": f"{limits.max_wait_s}s",
        "providers": {
            "openai": {
                "base_url": f"http://127.0.0.1:{place.upstream}/v1",
                "accounts": [{"api_key": "env:OPENAI_API_KEY", "limits": account}],
                "models": {"gpt-4o*": ["100M rpm", "100B tpm"]},
            }
        },
        "teams": {"bench": {"limits": [f"${MANY}/day"]}},
        "prices": {f"openai/{prompts.MODEL}": {"input": 0.15, "output": 0.6}},
    }


def _create(name: str, limits: Limits, file: Path) -> str:
    """Make a client key, as an operator does."""
    words = ["keys", "create", name, "--team", "bench", "-c", str(file)]
    for limit in (f"{limits.rpm} rpm", f"{limits.tpm} tpm", "100k concurrent"):
        words += ["--limit", limit]
    made = subprocess.run(
        [COMMAND, *words],
        env=os.environ | OURS,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise RuntimeError(made.stderr)
    return made.stdout.strip()
