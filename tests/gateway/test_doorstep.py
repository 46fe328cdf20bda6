"""Where calls wait for a closed account, and in which order and number they go in."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from ratekeeper.core.line import Priority
from ratekeeper.core.units import SECOND
from ratekeeper.gateway.doorstep import Doorsteps
from ratekeeper.testing import VirtualLoop, run_virtual
from tests.gateway import gates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


@dataclasses.dataclass(eq=False)
class Door:
    """An account, as far as those outside can see it."""

    open_us: int
    is_proved: bool = False

    def wait_us(self, now: int) -> int:
        return max(0, self.open_us - now)


class Street:
    """Doors in virtual time, and who came in when, in seconds."""

    def __init__(self, *, patience_s: float = 60) -> None:
        self.loop = VirtualLoop()
        self.now_us = self.loop.clock.now_us
        self.begun_us = self.now_us()
        self.steps = Doorsteps(self.now_us)
        self.entered: list[tuple[str, float]] = []
        self.turned_away: list[tuple[str, float]] = []
        self._patience_us = round(patience_s * 1e6)

    def door(self, after_s: float, **said: Any) -> Door:
        return Door(self.begun_us + round(after_s * 1e6), **said)

    async def come(self, name: str, *doors: Door, priority: int = 1) -> None:
        now = self.now_us()
        waiter = self.steps.waiter(priority, name, 1, now, now + self._patience_us)
        is_in = await self.steps.wait(doors, waiter)
        at_s = round((self.now_us() - self.begun_us) / 1e6, 2)
        (self.entered if is_in else self.turned_away).append((name, at_s))

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await story()

        run_virtual(whole(), self.loop)
        assert not self.steps


def test_a_few_go_first_and_all_others_once_the_account_has_answered() -> None:
    street = Street()
    door = street.door(5)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(100):
                group.create_task(street.come(str(n), door))
            await asyncio.sleep(5.5)
            door.is_proved = True

    street.play(story)
    times = [at_s for _, at_s in street.entered]

    assert [5.0] * 4 == times[:4]
    assert 5.5 <= times[4] <= times[-1] <= 5.56
    assert [str(n) for n in range(100)] == [name for name, _ in street.entered]


def test_where_no_answer_comes_they_become_more_with_time() -> None:
    street = Street()
    door = street.door(0.5)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(64):
                group.create_task(street.come(str(n), door))

    street.play(story)
    counts = [
        sum(at_s < 0.5 + after_s for _, at_s in street.entered)
        for after_s in (0.1, 1.2, 2.2, 3.2, 4.3)
    ]

    assert [4, 8, 16, 32, 64] == counts


def test_when_it_closes_again_the_others_stay_and_a_few_go_first_once_more() -> None:
    street = Street()
    door = street.door(1)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(10):
                group.create_task(street.come(str(n), door))
            await asyncio.sleep(1.2)
            door.open_us = street.begun_us + 10 * SECOND

    street.play(story)

    assert [1, 1, 1, 1, 10, 10, 10, 10] == [round(t) for _, t in street.entered[:8]]


def test_they_go_by_class_then_by_share_then_by_arrival() -> None:
    street = Street()
    door = street.door(5, is_proved=True)
    come = [
        *[("batch", Priority.BATCH), ("flood", Priority.NORMAL)] * 2,
        *[("flood", Priority.NORMAL)] * 2,
        ("small", Priority.NORMAL),
        ("person", Priority.INTERACTIVE),
    ]

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for name, priority in come:
                group.create_task(street.come(name, door, priority=priority))

    street.play(story)

    assert [
        *("person", "flood", "small", "flood", "flood", "flood", "batch", "batch")
    ] == [name for name, _ in street.entered]


def test_whoever_cannot_wait_so_long_is_told_at_once() -> None:
    street = Street(patience_s=8)
    door = street.door(1)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(6):
                group.create_task(street.come(str(n), door))
            await asyncio.sleep(1.1)
            door.open_us = street.begun_us + 30 * SECOND

    street.play(story)

    assert [("4", 1.15), ("5", 1.15)] == street.turned_away


def test_while_a_probe_is_out_nobody_is_turned_away_before_the_deadline() -> None:
    """How long it takes is a guess then; it may be answered any moment."""
    street = Street(patience_s=3)

    class Probing(Door):
        def wait_us(self, now: int) -> int:
            return SECOND if now < self.open_us else 0

    near, far = Probing(street.begun_us + 2_900_000), Probing(street.begun_us + 10**7)

    async def story() -> None:
        await asyncio.gather(street.come("near", near), street.come("far", far))

    street.play(story)

    assert [("near", 2.9)] == street.entered
    assert [("far", 3.0)] == street.turned_away


def test_the_first_of_several_doors_that_opens_lets_them_in() -> None:
    street = Street()
    doors = street.door(50), street.door(2)

    async def story() -> None:
        await street.come("one", *doors)

    street.play(story)

    assert [("one", 2.0)] == street.entered


def test_all_are_let_go_in_order_and_some_in_each_turn_where_they_are_to_choose_anew() -> (
    None
):
    street = Street()
    door = street.door(30)
    turns: list[int] = []

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(50):
                group.create_task(street.come(str(n), door))
            group.create_task(street.come("first", door, priority=0))
            await asyncio.sleep(1)
            street.steps.disperse()
            assert not street.steps.are_taken((door,))
            while len(street.turned_away) < 51:
                before = len(street.turned_away)
                await asyncio.sleep(0)
                turns.append(len(street.turned_away) - before)

    street.play(story)

    assert [] == street.entered
    assert ["first", *map(str, range(50))] == [name for name, _ in street.turned_away]
    assert {1.0} == {at_s for _, at_s in street.turned_away}
    assert 20 == max(turns)


def test_whoever_hangs_up_leaves_and_nobody_waits_longer_for_it() -> None:
    street = Street()
    door = street.door(1)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(street.come(str(n), door)) for n in range(8)]
            await asyncio.sleep(0.5)
            for task in tasks[:4]:
                task.cancel()

    street.play(story)

    assert [(str(n), 1.0) for n in range(4, 8)] == street.entered


async def _overloaded(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    said = scope["app_state"]
    said["asked"] += 1
    headers = [(b"content-type", b"application/json")]
    if said["is_overloaded"]:
        said["in_vain"] += 1
        status, body = 503, b'{"error": {"message": "overloaded"}}'
        headers.append((b"retry-after", b"1"))
    else:
        status, body = 200, b'{"object": "chat.completion"}'
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_hundreds_that_wait_do_not_fall_upon_a_provider_that_is_still_overloaded(
    tmp_path: Path,
) -> None:
    """All at once they would spend every retry there is, and be lost."""
    said: dict[str, Any] = {"asked": 0, "in_vain": 0, "is_overloaded": True}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _overloaded({**scope, "app_state": said}, receive, send)

    async def callers(url: str) -> list[int]:
        headers = {"authorization": f"Bearer {gates.SECRET}"}
        body = {"model": "gpt-4o", "max_tokens": 5, "messages": gates.MESSAGES}
        bounds = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(
            base_url=url, headers=headers, timeout=30, limits=bounds
        ) as client:

            async def call() -> int:
                return (
                    await client.post("/v1/chat/completions", json=body)
                ).status_code

            begun = time.monotonic()
            tasks = [asyncio.create_task(call())]
            await asyncio.sleep(0.3)
            tasks += [asyncio.create_task(call()) for _ in range(199)]
            await asyncio.sleep(2.5)
            said["is_overloaded"] = False
            said["lasted_s"] = time.monotonic() - begun
            return await asyncio.gather(*tasks)

    keys = [gates.client_key(max_wait="30s")]
    with gates.asgi(app) as url:
        config = gates.config(tmp_path, {"openai": gates.account(url)}, keys)
        with gates.gate(config) as it:
            statuses = asyncio.run(callers(it.url))

    assert [200] * 200 == statuses
    assert said["in_vain"] <= 7 * said["lasted_s"]
    assert 200 + said["in_vain"] == said["asked"]
