from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.flows.world import Tasks, Threads

if TYPE_CHECKING:
    from tests.flows.world import World


@pytest.fixture(params=[Threads, Tasks])
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param()
    return made
