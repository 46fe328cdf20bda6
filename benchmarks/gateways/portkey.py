"""Portkey's gateway on Node: routes and retries, and has no limits.

It is installed with @hono/node-server 1.13.8: with every later one that was tried, up to
1.19.19, it answers each stream with a 500 (“TypeError: immutable”).
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from benchmarks.gateways.peer import SECRET, Launch
from benchmarks.gateways.process import ROOT

if TYPE_CHECKING:
    from benchmarks.gateways.peer import Limits, Place

HOME = ROOT / "benchmarks" / "gateways" / "portkey" / "node_modules/@portkey-ai/gateway"


class Portkey:
    """Its row; a caller names the provider in headers, as its page says."""

    @property
    def name(self) -> str:
        package = json.loads((HOME / "package.json").read_text())
        return f"Portkey {package['version']}"

    def missing(self) -> str:
        if not (HOME / "build" / "start-server.js").exists():
            return "Portkey: not installed"
        return "" if shutil.which("node") else "Portkey: there is no Node here"

    def launch(self, place: Place, limits: Limits) -> Launch:
        del limits  # it has none
        caller = {
            "authorization": f"Bearer {SECRET}",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{place.upstream}/v1",
        }
        node = shutil.which("node") or "node"
        start = str(HOME / "build" / "start-server.js")
        return Launch(
            argv=[node, start, f"--port={place.port}", "--headless"],
            callers=[caller] * place.keys,
            env={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"},
        )
