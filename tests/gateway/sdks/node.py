"""SDKs for Node: what is tried with them is in scripts that `node/play.mjs` plays."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import needs

HOME = Path(__file__).parents[1] / "node"
LOCK = HOME / "package-lock.json"
_WAIT_S = 15
_OLDEST = 20  # files are uploaded with its `File`


@dataclasses.dataclass(frozen=True, slots=True)
class NodeSdk:
    """An SDK for Node: `errors` are its classes by status, the rest as for Python's."""

    name: str
    script: str
    here: str
    there: str
    variables: tuple[str, str]
    errors: Mapping[int, str]
    timeout: str
    checks: tuple[str, ...]

    def version(self) -> str:
        return _versions(LOCK)[f"node_modules/{self.name}"]

    def play(
        self, part: str, environ: Mapping[str, str] | None = None, **at: Any
    ) -> Any:
        """Run one part of its script and return what it prints."""
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ
        }
        done = subprocess.run(
            [node(), HOME / "play.mjs", self.script, part],
            input=json.dumps(at),
            env={**kept, **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=_WAIT_S,
        )
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout)


@functools.cache
def _node() -> tuple[str, str]:
    """Return where Node is, or what is missing to run its SDKs."""
    found = needs.find("node")
    if found is None:
        return "", "there is no Node here"
    said = subprocess.check_output([found, "--version"], text=True)
    if int(said.strip().lstrip("v").partition(".")[0]) < _OLDEST:
        return "", f"the SDKs want Node {_OLDEST} or later; this is {said.strip()}"
    installed = HOME / "node_modules" / ".package-lock.json"
    if not installed.exists() or _versions(LOCK) != _versions(installed):
        return "", "the SDKs of the lock are not installed: make node"
    return found, ""


def _versions(lock: Path) -> dict[str, str]:
    packages = json.loads(lock.read_text())["packages"]
    return {name: one["version"] for name, one in packages.items() if name}


def node() -> str:
    """Return where Node is; skips, or fails where it must be, if it cannot be used."""
    found, missing = _node()
    if missing:
        needs.lack("node", missing)
    return found


_COMMON = (
    "plain calls",
    "streams",
    "tools",
    "streamed tools",
    "tool runner",
    "structured output",
    "counting tokens",
    "list of models",
    "files",
    "batches",
)
_NAMES = {
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    502: "InternalServerError",
}
OPENAI = NodeSdk(
    "openai",
    script="openai",
    here="/v1",
    there="/v1",
    variables=("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    errors={
        **_NAMES,
        413: "APIError",
        503: "InternalServerError",
        504: "InternalServerError",
    },
    timeout="APIConnectionTimeoutError",
    checks=(*_COMMON, "Responses API", "embeddings"),
)
ANTHROPIC = NodeSdk(
    "@anthropic-ai/sdk",
    script="anthropic",
    here="/anthropic",
    there="",
    variables=("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    errors={
        **_NAMES,
        413: "ContentTooLargeError",
        503: "ServiceUnavailableError",
        504: "GatewayTimeoutError",
    },
    timeout="APIConnectionTimeoutError",
    checks=_COMMON,
)
GOOGLE = NodeSdk(
    "@google/genai",
    script="genai",
    here="/gemini",
    there="",
    variables=("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
    errors=dict.fromkeys((*_NAMES, 413, 503, 504), "ApiError"),
    timeout="AbortError",
    checks=(*_COMMON, "embeddings"),
)
NODE_SDKS = (OPENAI, ANTHROPIC, GOOGLE)
