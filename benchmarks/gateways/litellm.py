"""LiteLLM's proxy with limits for each client key, kept in its memory.

Its own keys want PostgreSQL; without, it documents a function that says who calls, and
what that key may do. So no key is looked up and nothing spent is written down, which
spares it work.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.gateways import prompts
from benchmarks.gateways.peer import SECRET, Launch, bearer
from benchmarks.gateways.process import ROOT

if TYPE_CHECKING:
    from benchmarks.gateways.peer import Limits, Place

HOME = ROOT / ".venv-gateways"
DOOR = """\
from litellm.proxy._types import UserAPIKeyAuth

async def who(request, api_key):
    return UserAPIKeyAuth(
        api_key=api_key, rpm_limit={rpm}, tpm_limit={tpm}, max_parallel_requests=100000
    )
"""


class LiteLLM:
    """Its row."""

    @property
    def name(self) -> str:
        found = list((HOME / "lib").glob("*/site-packages/litellm-*.dist-info"))
        version = found[0].name.split("-")[1].removesuffix(".dist") if found else ""
        return f"LiteLLM {version}"

    def missing(self) -> str:
        there = (HOME / "bin" / "litellm").exists()
        return "" if there else "LiteLLM: not installed"

    def launch(self, place: Place, limits: Limits) -> Launch:
        config = place.folder / "config.yaml"
        (place.folder / "door.py").write_text(
            DOOR.format(rpm=limits.rpm, tpm=limits.tpm)
        )
        config.write_text(
            json.dumps(
                {  # which is YAML too
                    "model_list": [
                        {
                            "model_name": prompts.MODEL,
                            "litellm_params": {
                                "model": f"openai/{prompts.MODEL}",
                                "api_base": f"http://127.0.0.1:{place.upstream}/v1",
                                "api_key": SECRET,
                            },
                        }
                    ],
                    "general_settings": {
                        "custom_auth": "door.who",
                        "master_key": SECRET,  # it will not start without one
                    },
                    "litellm_settings": {"telemetry": False},
                }
            )
        )
        return Launch(
            argv=[
                str(HOME / "bin" / "litellm"),
                *("--config", str(config), "--host", "127.0.0.1"),
                *("--port", str(place.port), "--num_workers", "1"),
                *("--telemetry", "False"),
            ],
            callers=[bearer(number) for number in range(place.keys)],
            env={
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no network
                "LITELLM_LOG": "ERROR",  # as its page on production says
                "LITELLM_MODE": "PRODUCTION",
            },
        )
