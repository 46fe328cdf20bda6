"""Faults are tried with everything logged, and no secret in it."""

from __future__ import annotations

from tests.gateway.conftest import canaries

__all__ = ["canaries"]
