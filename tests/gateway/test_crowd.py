"""Calls in an account's line that are let go: in order, and a few at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

from ratekeeper.core import plans
from ratekeeper.core.line import State
from ratekeeper.core.policy import rules_of
from ratekeeper.core.waiter import Waiter
from ratekeeper.gateway.admit import Crowd
from ratekeeper.runtime import aio
from ratekeeper.stores.memory import MemoryStore
from ratekeeper.testing import VirtualLoop, run_virtual

FEW = 16


class Account:
    """An account's limit that is used up, and those who stand in its line."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.store = MemoryStore(clock=loop.clock)
        scope = self.store.scope("account/one", rules_of(["1 request/minute"]))
        self.targets = [(scope, "")]
        assert self.store.take(scope, "", [1])
        self.crowd = Crowd(self.store)
        self.left: list[int] = []  # by number, as they are let go

    async def wait(self, number: int, *, has_choice: bool = True) -> State:
        waiter = Waiter([1], seat=aio.TaskSeat(self.store))
        self.crowd.join(waiter, has_choice=has_choice)
        try:
            await aio.run(plans.acquire(waiter), self.store, self.targets)
        finally:
            self.crowd.part(waiter)
        self.left.append(number)
        return waiter.state

    async def turns(self) -> list[int]:
        """Return how many are let go in each turn of the loop until nobody is."""
        await asyncio.sleep(0)
        counts, before = [], 0
        while len(self.left) > before:
            counts.append(len(self.left) - before)
            before = len(self.left)
            await asyncio.sleep(0)
        return counts


def test_a_crowd_is_let_go_in_the_order_of_arrival_a_few_in_each_turn() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        account = Account(loop)
        tasks = [asyncio.create_task(account.wait(n)) for n in range(800)]
        await asyncio.sleep(0)
        account.crowd.disperse(all_of_them=True)
        turns = await account.turns()

        assert [FEW] * 50 == turns
        assert [*range(800)] == account.left
        assert {State.LET_GO} == {await task for task in tasks}
        assert 0 == len(account.crowd)

    run_virtual(main(), loop)


def test_a_crowd_that_is_let_go_again_and_again_goes_no_faster() -> None:
    """Calls under way that are refused one after another each let those in line go."""
    loop = VirtualLoop()

    async def again(account: Account, numbers: Iterator[int]) -> None:
        state = State.LET_GO
        while state is State.LET_GO:  # each of them chooses the same account anew
            state = await account.wait(next(numbers))

    async def main() -> None:
        account, numbers = Account(loop), itertools.count()
        tasks = [asyncio.create_task(again(account, numbers)) for _ in range(100)]
        await asyncio.sleep(0)
        counts, before = [], 0
        for _ in range(10):
            account.crowd.disperse(all_of_them=False)
            await asyncio.sleep(0)
            counts.append(len(account.left) - before)
            before = len(account.left)
        for task in tasks:
            task.cancel()

        assert max(counts) <= FEW
        assert [*range(100)] == account.left[:100]

    run_virtual(main(), loop)


def test_who_has_no_choice_stays_in_line_while_the_account_is_open() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        account = Account(loop)
        stays = asyncio.create_task(account.wait(0, has_choice=False))
        goes = asyncio.create_task(account.wait(1))
        await asyncio.sleep(0)
        account.crowd.disperse(all_of_them=False)

        assert State.LET_GO is await goes
        assert [1] == account.left
        assert State.GRANTED is await stays

    run_virtual(main(), loop)
