"""The ledger: commits in groups, and no call sent whose charge is not on disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ratekeeper.core.policy import rules_of
from ratekeeper.errors import StoreUnavailable
from ratekeeper.gateway.ledger import Ledger
from ratekeeper.providers.facts import Usage
from ratekeeper.stores.database import Database
from ratekeeper.stores.journal import Journal
from ratekeeper.stores.keys import Scope
from ratekeeper.stores.memory import MemoryStore
from ratekeeper.testing import ManualClock, run_virtual

if TYPE_CHECKING:
    from ratekeeper.stores.journal import Write


class Room:
    """A store whose durable use a ledger keeps."""

    def __init__(self, path: Path, clock: ManualClock | None = None) -> None:
        clock = clock or ManualClock()
        self.path = path
        self.database = Database(path)
        self.journal = Journal(self.database)
        loop = asyncio.get_running_loop()
        self.ledger = Ledger(self.database, self.journal, loop, clock=clock)
        self.store = MemoryStore(clock=clock, journal=self.journal)
        self.scope: Scope = self.store.scope("team/a", rules_of(["1M tpd"]))

    async def call(self, tokens: int) -> None:
        assert self.store.take(self.scope, "", [tokens])
        await self.ledger.kept()

    def on_disk(self, query: str = "SELECT sum(amount) FROM used") -> list[object]:
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()


@asynccontextmanager
async def room(path: Path) -> AsyncIterator[Room]:
    one = Room(path / "ratekeeper.db")
    try:
        yield one
    finally:
        await one.ledger.close()
        one.journal.close()
        one.database.close()


def test_a_call_waits_until_its_charge_is_on_disk(tmp_path: Path) -> None:
    async def scenario() -> list[object]:
        async with room(tmp_path) as one:
            await one.call(500)
            return one.on_disk()

    assert [(500,)] == asyncio.run(scenario())


def test_calls_of_one_turn_share_a_commit(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, list[object]]:
        async with room(tmp_path) as one:
            flushed = 0
            flush = one.ledger._flush

            def counted(*also: Write) -> None:
                nonlocal flushed
                flushed += 1
                flush(*also)

            one.ledger._flush = counted  # type: ignore[method-assign]
            await asyncio.gather(*(one.call(10) for _ in range(20)))
            return flushed, one.on_disk()

    assert (1, [(200,)]) == asyncio.run(scenario())


def test_nobody_waits_where_nothing_was_noted(tmp_path: Path) -> None:
    async def scenario() -> bool:
        async with room(tmp_path) as one:
            waits = asyncio.ensure_future(one.ledger.kept())
            await asyncio.sleep(0)
            return waits.done()

    assert asyncio.run(scenario())


def test_a_call_that_is_cancelled_leaves_the_others_their_commit(
    tmp_path: Path,
) -> None:
    async def scenario() -> list[object]:
        async with room(tmp_path) as one:
            first, second = (asyncio.ensure_future(one.call(10)) for _ in "ab")
            await asyncio.sleep(0)
            first.cancel()
            await second
            return one.on_disk()

    assert [(20,)] == asyncio.run(scenario())


def test_what_is_settled_is_on_disk_within_moments(tmp_path: Path) -> None:
    async def scenario() -> list[object]:
        async with room(tmp_path) as one:
            taken = one.store.take(one.scope, "", [500])
            assert taken
            await one.ledger.kept()
            one.store.settle(taken[0], [500], taken[1], {"tokens": 120})
            one.ledger.soon()
            one.ledger.soon()
            await asyncio.sleep(0.2)
            return one.on_disk()

    assert [(120,)] == run_virtual(scenario())


def test_no_call_is_sent_while_the_disk_refuses_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> tuple[list[object], list[object]]:
        async with room(tmp_path) as one:
            with one.database.reading() as connection:
                connection.execute("PRAGMA query_only=ON")
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="cannot be used"):
                    await one.call(100)
            before = one.on_disk()
            with one.database.reading() as connection:
                connection.execute("PRAGMA query_only=OFF")
            await asyncio.sleep(0.3)
            await one.call(1)
            return before, one.on_disk()

    assert ([(None,)], [(301,)]) == run_virtual(scenario())
    assert ["will be tried again", "nothing was lost"] == [
        next(
            x
            for x in ("will be tried again", "nothing was lost")
            if x in r.getMessage()
        )
        for r in caplog.records
        if r.name == "ratekeeper"
    ]


def test_a_commit_that_fails_unforeseen_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def scenario() -> str:
        async with room(tmp_path) as one:
            flush = one.journal.flush

            def failing(*_: object) -> None:
                raise ValueError("a secret")

            one.journal.flush = failing  # type: ignore[method-assign]
            with pytest.raises(StoreUnavailable) as caught:
                await asyncio.wait_for(one.call(1), 5)
            one.journal.flush = flush  # type: ignore[method-assign]
            return str(caught.value)

    assert "ValueError" == asyncio.run(scenario())


def test_a_name_that_no_file_can_hold_stops_no_commit(tmp_path: Path) -> None:
    async def scenario() -> list[object]:
        async with room(tmp_path) as one:
            usage = Usage(input_tokens=1, output_tokens=2)
            one.ledger.spent("app", "", "openai", "gpt\ud800", usage, {})
            await one.call(1)
            return one.on_disk("SELECT model FROM spend")

    assert [("gpt?",)] == asyncio.run(scenario())


def test_settlements_that_were_refused_are_tried_again_by_themselves(
    tmp_path: Path,
) -> None:
    async def scenario() -> list[object]:
        async with room(tmp_path) as one:
            with one.database.reading() as connection:
                connection.execute("PRAGMA query_only=ON")
            one.store.take(one.scope, "", [100])
            one.ledger.soon()
            await asyncio.sleep(0.1)
            with one.database.reading() as connection:
                connection.execute("PRAGMA query_only=OFF")
            await asyncio.sleep(0.3)
            return one.on_disk()

    assert [(100,)] == run_virtual(scenario())


SPEND = "SELECT * FROM spend ORDER BY model, currency"


def test_spend_adds_up_by_day_key_team_provider_model_and_currency(
    tmp_path: Path,
) -> None:
    async def scenario() -> list[object]:
        async with room(tmp_path) as one:
            usage = Usage(input_tokens=10, output_tokens=3)
            for _ in range(2):
                one.ledger.spent("k", "t", "openai", "gpt-4o", usage, {"usd": 7})
            await asyncio.sleep(0.2)
            one.ledger.spent("k", "t", "openai", "gpt-4o", usage, {"usd": 7, "cny": 9})
            one.ledger.spent("k", "t", "openai", "o3", usage, {})
            await one.ledger.close()
            return one.on_disk(SPEND)

    day = "2027-01-15"

    assert [
        (day, "k", "t", "openai", "gpt-4o", "cny", 0, 0, 0, 9),
        (day, "k", "t", "openai", "gpt-4o", "usd", 3, 30, 9, 21),
        (day, "k", "t", "openai", "o3", "", 1, 10, 3, 0),
    ] == run_virtual(scenario())


def test_names_that_callers_choose_take_bounded_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratekeeper.gateway.ledger._MOST_ROWS", 5)

    async def scenario() -> tuple[int, list[object]]:
        async with room(tmp_path) as one:
            for at in range(100):
                one.ledger.spent(
                    "k", "t", "openai", f"m{at}" * 200, Usage(), {"usd": 1}
                )
            held = len(one.ledger._spend)
            await one.ledger.close()
            return held, one.on_disk(
                "SELECT sum(requests), sum(cost_nano), max(length(model)) FROM spend"
            )

    assert (6, [(100, 100, 200)]) == asyncio.run(scenario())


def test_models_of_a_key_beyond_hundreds_in_a_day_are_counted_together(
    tmp_path: Path,
) -> None:
    async def scenario() -> list[object]:
        clock = ManualClock()
        one = Room(tmp_path / "ratekeeper.db", clock)
        for _ in range(2):
            for at in range(300):
                one.ledger.spent("a", "", "p", f"m{at}", Usage(input_tokens=1), {})
            one.ledger.spent("b", "", "p", "m299", Usage(input_tokens=1), {})
            clock.advance(86_400)
        await one.ledger.close()
        found = one.on_disk(
            "SELECT key, count(*), sum(requests), max(requests) FROM spend "
            "GROUP BY day, key"
        )
        named = one.on_disk("SELECT key, requests FROM spend WHERE model = '(other)'")
        one.journal.close()
        one.database.close()
        return [*found, *named]

    each_day = [("a", 257, 300, 44), ("b", 1, 1, 1)]

    assert [*each_day, *each_day, ("a", 44), ("a", 44)] == asyncio.run(scenario())


def test_a_checkpoint_moves_the_log_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the log grows for as long as the gateway runs."""
    monkeypatch.setattr("ratekeeper.gateway.ledger._CHECKPOINT_S", 0.02)
    monkeypatch.setattr("ratekeeper.stores.database._LONG_LOG", 50)

    async def scenario() -> int:
        async with room(tmp_path) as one:
            for _ in range(40):
                for _ in range(10):
                    await one.call(1)
                await asyncio.sleep(0.01)
            return (tmp_path / "ratekeeper.db-wal").stat().st_size

    assert asyncio.run(scenario()) < 400 * 2 * 4096


def test_old_use_is_pruned_at_the_start(tmp_path: Path) -> None:
    async def scenario() -> list[object]:
        async with room(tmp_path) as one:
            await one.call(5)
        clock = ManualClock()
        clock.advance(10 * 24 * 3600)
        one = Room(tmp_path / "ratekeeper.db", clock)
        await asyncio.sleep(0.1)
        left = one.on_disk("SELECT count(*) FROM used")
        await one.ledger.close()
        one.journal.close()
        one.database.close()
        return left

    assert [(0,)] == run_virtual(scenario())
