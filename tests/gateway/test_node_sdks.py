"""Official SDKs for Node, unchanged, through the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import gates
from tests.gateway.sdks import stage
from tests.gateway.sdks.node import NODE_SDKS, NodeSdk
from tests.gateway.sdks.provider import ENDLESS, SLOW
from tests.gateway.sdks.stage import ODDS, Stage

EVERY = pytest.mark.parametrize("sdk", NODE_SDKS, ids=lambda sdk: sdk.script)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage.stage(tmp_path_factory.mktemp("sdks")) as running:
        yield running


def _through(it: Stage, sdk: NodeSdk, part: str, **at: Any) -> Any:
    said = {"url": it.through + sdk.here, "key": gates.SECRET, **at}
    return sdk.play(part, **said)


@EVERY
def test_an_sdk_gets_through_the_gateway_what_it_gets_straight(
    it: Stage, sdk: NodeSdk
) -> None:
    it.provider.seen.clear()
    url = it.straight + sdk.there
    straight = sdk.play("checks", url=url, key=gates.UPSTREAM_KEY)
    told = [one.told() for one in it.provider.seen]
    it.provider.seen.clear()
    through = _through(it, sdk, "checks")

    assert [] == [one["wrong"] for one in straight.values() if "wrong" in one]
    assert {*sdk.checks} == {*straight}
    assert straight == through
    assert told == [one.told() for one in it.provider.seen]


@EVERY
def test_an_sdk_raises_its_own_class_for_each_refusal(
    tmp_path: Path, sdk: NodeSdk
) -> None:
    with stage.stage(tmp_path) as fresh:
        odds = {
            status: (fresh.through + (path or sdk.here), key, text)
            for status, (path, key, text) in ODDS.items()
        }
        raised = sdk.play("refusals", odds=odds)

    assert {
        str(status): [name, status] for status, name in sdk.errors.items()
    } == raised


@EVERY
def test_an_sdks_own_retry_is_let_in(it: Stage, sdk: NodeSdk) -> None:
    it.provider.seen.clear()
    _through(it, sdk, "retries", key=stage.SHORT)

    assert 2 == len(it.provider.seen)


@EVERY
def test_an_sdks_own_timeout_ends_the_call_at_the_provider(
    it: Stage, sdk: NodeSdk
) -> None:
    raised = _through(it, sdk, "timeout", model=SLOW)

    assert {"raised": [sdk.timeout, None]} == raised
    assert SLOW == it.provider.left.get(timeout=5)


@EVERY
def test_leaving_in_mid_stream_ends_it_at_the_provider(it: Stage, sdk: NodeSdk) -> None:
    assert {"seen": 3} == _through(it, sdk, "leaving", model=ENDLESS)
    assert ENDLESS == it.provider.left.get(timeout=5)


@EVERY
def test_an_sdk_shows_the_headers_of_the_gateway(it: Stage, sdk: NodeSdk) -> None:
    stage.look_at_headers(_through(it, sdk, "headers"))


@EVERY
def test_an_sdk_is_pointed_at_the_gateway_by_its_environment(
    it: Stage, sdk: NodeSdk
) -> None:
    where, key = sdk.variables
    it.provider.seen.clear()
    sdk.play("environment", {where: it.through + sdk.here, key: gates.SECRET})

    assert 1 == len(it.provider.seen)
