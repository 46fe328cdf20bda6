"""The journal: what was used of a day or a budget outlives the process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratekeeper.core.limits import Limit
from ratekeeper.core.policy import Rule, rules_of
from ratekeeper.core.units import DAY, HOUR, MINUTE, SECOND
from ratekeeper.errors import ConfigError, StoreUnavailable
from ratekeeper.stores.database import Database
from ratekeeper.stores.journal import Journal, span_us
from ratekeeper.stores.memory import MemoryStore
from ratekeeper.testing.clock import EPOCH, ManualClock

Open = Callable[..., tuple[MemoryStore, Journal]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Start a process's store on the one file, ending the one before."""
    runs: list[tuple[Database, Journal]] = []

    def end() -> None:
        for database, journal in runs:
            journal.close()
            database.close()
        runs.clear()

    def start(clock: ManualClock, max_keys: int = 100) -> tuple[MemoryStore, Journal]:
        end()
        database = Database(tmp_path / "ratekeeper.db")
        journal = Journal(database)
        runs.append((database, journal))
        journal.begin(clock.now_us())
        return MemoryStore(clock=clock, journal=journal, max_keys=max_keys), journal

    yield start
    end()


def used(store: MemoryStore, *limits: str, key: str = "") -> list[object]:
    scope = store.scope("team/a", rules_of(limits))
    return [status.used for status in store.status(scope, key)]


def spend(store: MemoryStore, amount: int, *limits: str, key: str = "") -> None:
    scope = store.scope("team/a", rules_of(limits))
    assert store.take(scope, key, [amount] * len(limits))


def test_what_was_used_is_used_after_a_restart(opened: Open) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    spend(store, 300, "1000 tokens/day", "5000 tokens/week", "600 tpm")
    journal.flush()
    store, _ = opened(clock)

    assert [300, 300, 0] == used(
        store, "1000 tokens/day", "5000 tokens/week", "600 tpm"
    )


def test_a_changed_amount_keeps_what_was_used(opened: Open) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    spend(store, 300, "1000 tokens/day")
    journal.flush()
    store, _ = opened(clock)

    assert [300] == used(store, "200 tokens/day")


def test_limits_of_private_scopes_are_not_written(opened: Open) -> None:
    store, journal = opened(ManualClock())
    scope = store.scope(None, rules_of(["1000 tokens/day"]))
    store.take(scope, "", [10])

    assert not journal.is_behind


def test_limits_added_live_recall_what_was_used_of_them(opened: Open) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    spend(store, 300, "1000 tokens/day")
    journal.flush()
    store, _ = opened(clock)
    scope = store.scope("team/a", rules_of(["600 tpm"]))
    store.take(scope, "", [10])
    store.reshape(scope, rules_of(["600 tpm", "1000 tokens/day"]))

    assert [10, 300] == [status.used for status in store.status(scope, "")]


def test_a_live_change_that_the_disk_refuses_changes_nothing(opened: Open) -> None:
    """Rows of two shapes in one scope would charge the wrong limits."""
    store, journal = opened(ManualClock())
    scope = store.scope("team/a", rules_of(["600 tpm"]))
    for key in "ab":
        store.take(scope, key, [10])
    before = dict(scope.rows)
    asked: list[str] = []
    with journal._database.reading() as connection:
        connection.set_trace_callback(asked.append)
        connection.set_progress_handler(lambda: len(asked) > 1, 1)

    with pytest.raises(StoreUnavailable):
        store.reshape(scope, rules_of(["1000 tokens/day"]))

    assert before == scope.rows
    assert ["600 tokens/minute"] == [rule.text for rule in scope.rules]
    assert store.take(scope, "a", [10])


def test_a_refund_goes_back_to_the_minute_it_was_taken_in(opened: Open) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    scope = store.scope("team/a", rules_of(["1000 tokens/day"]))
    taken = store.take(scope, "", [500])
    assert taken
    clock.advance(600)
    spend(store, 100, "1000 tokens/day")
    store.settle(taken[0], [500], taken[1], {"tokens": 50})
    journal.flush()
    clock.advance(24 * 3600 - 600 + 60)
    store, _ = opened(clock)

    assert [100] == used(store, "1000 tokens/day")


def test_a_charge_and_its_refund_leave_nothing_to_write(opened: Open) -> None:
    store, journal = opened(ManualClock())
    scope = store.scope("team/a", rules_of(["1000 tokens/day"]))
    taken = store.take(scope, "", [500])
    assert taken
    store.give_back(taken[0], [500], taken[1])
    journal.flush()

    assert not journal.is_behind


def test_a_key_that_was_forgotten_and_comes_back_is_remembered(opened: Open) -> None:
    """The bound of keys must not give anybody a second budget."""
    store, journal = opened(ManualClock(), max_keys=2)
    spend(store, 300, "1000 tokens/day", key="a")
    journal.flush()
    spend(store, 50, "1000 tokens/day", key="a")  # not on disk yet
    for at in range(4):
        spend(store, 900, "1000 tokens/day", key=f"flood-{at}")
    scope = store.scope("team/a", rules_of(["1000 tokens/day"]))

    assert "a" not in scope.rows
    assert [350] == used(store, "1000 tokens/day", key="a")
    spend(store, 1, "1000 tokens/day", key="a")
    assert [351] == used(store, "1000 tokens/day", key="a")


def test_a_clock_set_back_loses_nothing_and_locks_out_for_one_window(
    opened: Open,
) -> None:
    ahead, clock = ManualClock(EPOCH + 10 * DAY), ManualClock()
    store, journal = opened(ahead)
    spend(store, 1000, "1000 tokens/day")
    journal.flush()
    store, _ = opened(clock)
    at_start = used(store, "1000 tokens/day")
    clock.advance(23 * 3600)
    store, _ = opened(clock)
    within = used(store, "1000 tokens/day")
    clock.advance(3601)
    store, _ = opened(clock)

    assert [[1000], [1000]] == [at_start, within]
    assert [0] == used(store, "1000 tokens/day")


def test_an_overrun_is_still_owed_after_a_restart(opened: Open) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    scope = store.scope("team/a", rules_of(["1000 tokens/day"]))
    taken = store.take(scope, "", [800])
    assert taken
    store.settle(taken[0], [800], taken[1], {"tokens": 1800})
    journal.flush()
    clock.advance(24 * 3600 + 61)
    store, _ = opened(clock)

    assert [800] == used(store, "1000 tokens/day")


def test_a_second_process_is_told_that_the_file_is_taken(
    opened: Open, tmp_path: Path
) -> None:
    opened(ManualClock())
    database = Database(tmp_path / "ratekeeper.db")

    with pytest.raises(ConfigError, match="another gateway is using"):
        Journal(database)

    database.close()


def test_a_claim_that_cannot_be_made_is_no_riddle(tmp_path: Path) -> None:
    database = Database(tmp_path / "ratekeeper.db")
    (tmp_path / "ratekeeper.db.lock").mkdir()

    with pytest.raises(StoreUnavailable, match="may this user write there"):
        Journal(database)

    database.close()


def test_notes_that_cannot_be_written_are_kept_and_tried_again(
    opened: Open, tmp_path: Path
) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    spend(store, 300, "1000 tokens/day")

    def no_room(connection: object) -> None:
        raise OSError(28, "No space left on device")

    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="No space left"):
            journal.flush(no_room)
        spend(store, 1, "1000 tokens/day")

    assert journal.is_behind

    journal.flush()
    store, _ = opened(clock)

    assert [303] == used(store, "1000 tokens/day")


def test_notes_that_cannot_be_written_take_no_more_room_than_limits(
    opened: Open,
) -> None:
    store, journal = opened(ManualClock())
    for _ in range(1000):
        spend(store, 1, "10000 tokens/day")
    with pytest.raises(StoreUnavailable), journal._database.reading():
        raise OSError
    journal._merge()

    assert 1 == len(journal._unwritten)
    assert not journal.notes


def test_what_is_older_than_its_windows_is_forgotten_a_little_at_a_time(
    opened: Open,
) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    for _ in range(1200):
        spend(store, 1, "10000 tokens/day")
        clock.advance(60)
    journal.flush()
    clock.advance(3 * 24 * 3600)
    spend(store, 7, "10000 tokens/day")
    journal.flush()
    steps, after = 0, journal.prune(clock.now_us())
    while after is not None:
        steps += 1
        after = journal.prune(clock.now_us(), after)
    with journal._database.reading() as connection:
        left = connection.execute("SELECT amount FROM used").fetchall()

    assert [(7,)] == left
    assert 3 == steps


def test_upkeep_touches_what_it_forgets_and_little_else(opened: Open) -> None:
    """It runs on the loop that serves every stream, over millions of rows."""
    clock = ManualClock()
    _, journal = opened(clock)
    now_s = clock.now_us() // SECOND
    with journal._database.writing() as connection:
        connection.executemany(
            "INSERT INTO limits VALUES (?, ?, '', 'tokens', 86400)",
            [(at, f"team/{at}") for at in range(100)],
        )
        connection.executemany(
            "INSERT INTO used VALUES (?, ?, 1)",
            [(at, now_s - 60 * ago) for at in range(100) for ago in range(300)],
        )
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1

        connection.set_progress_handler(tick, 100)
    journal.begin(clock.now_us())
    journal.prune(clock.now_us())

    assert ticks < 300  # of a hundred steps each; there are 30,000 rows


def test_limits_without_use_are_forgotten_at_the_start(opened: Open) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    spend(store, 5, "1000 tokens/day")
    journal.flush()
    clock.advance(10 * 24 * 3600)
    journal.prune(clock.now_us())
    _, journal = opened(clock)
    with journal._database.reading() as connection:
        left = connection.execute("SELECT count(*) FROM limits").fetchone()

    assert (0,) == left


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("$5/day", MINUTE),
        ("$5/day resets 00:30 Asia/Kolkata", MINUTE),
        ("$5/month", 30 * MINUTE),
        ("$5/month resets 00:00", MINUTE),
        ("$5/minute", SECOND),
    ],
)
def test_use_is_kept_by_the_minute_of_a_day(text: str, width: int) -> None:
    assert width == span_us(Limit.parse(text))


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5 * HOUR),
        st.integers(1, 400),
        st.sampled_from(["take", "take", "refund", "crash"]),
    ),
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(
        [
            "1000 tokens/day",
            "1000 tokens/day using fixed-window",
            "1000 tokens/day resets 09:30 America/Los_Angeles",
            "1000 tokens/week",
        ]
    ),
    STEPS,
)
def test_a_restored_limit_holds_what_was_used_and_a_minute_longer_at_most(
    opened: Open, text: str, steps: list[tuple[int, int, str]]
) -> None:
    clock = ManualClock()
    store, journal = opened(clock)
    with journal._database.writing() as connection:
        connection.execute("DELETE FROM used")
        connection.execute("DELETE FROM limits")
    rules = rules_of([text])
    never_ended = rules[0].meter(clock.now_us())
    late = rules[0].meter(clock.now_us())  # told of all at the end of its span
    log: list[tuple[int, int]] = []
    for gap, cost, act in steps:
        clock.advance(us=gap)
        now = clock.now_us()
        if act == "crash":
            store, journal = opened(clock)
        elif act == "refund" and log:
            at_us, had = log[-1]
            had = min(had, cost)
            scope = store.scope("team/a", rules)
            meters = store._keys.row(scope, "", now)
            if at_us > now - rules[0].limit.window_us:
                meters[0].back(had, at_us, now)
                never_ended.back(had, at_us, now)
                log[-1] = at_us, log[-1][1] - had
        elif store.take(store.scope("team/a", rules), "", [cost]) is not None:
            never_ended.take(cost, now)
            log.append((now, cost))
        journal.flush()
    store, journal = opened(clock)
    for at_us, cost in log:
        end_us = (at_us // span_us(rules[0].limit) + 1) * span_us(rules[0].limit) - 1
        late.take(cost, min(end_us, clock.now_us()))
    now = clock.now_us()
    (restored,) = store._keys.row(store.scope("team/a", rules), "", now)

    assert never_ended.used(now) <= restored.used(now) <= late.used(now)


CHILD = """
import sys
from pathlib import Path
from ratekeeper.core.policy import rules_of
from ratekeeper.stores.database import Database
from ratekeeper.stores.journal import Journal
from ratekeeper.stores.memory import MemoryStore

journal = Journal(Database(Path(sys.argv[1])))
store = MemoryStore(journal=journal)
journal.begin(store.now_us())
scope = store.scope("team/a", rules_of(["$10/day", "10M tpd"]))
for at in range(100_000):
    store.take(scope, "", [1000, 7])
    journal.flush()
    print(at + 1, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_what_was_committed_survives_a_kill_at_any_instant(
    opened: Open, tmp_path: Path
) -> None:
    """Never less than what was told, never more than that and the call in flight."""
    seed = random.Random(7)
    told = 0
    for _ in range(30):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "ratekeeper.db")],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout
            for _ in range(seed.randrange(1, 200)):
                last = child.stdout.readline()
            os.kill(child.pid, signal.SIGKILL)
            rest = child.stdout.read().split("\n")
            last = next((x for x in reversed(rest[:-1]) if x), last)
        store, journal = opened(ManualClock(_now_us()))
        money, tokens = (
            m.used(store.now_us())
            for m in store._keys.row(
                store.scope("team/a", rules_of(["$10/day", "10M tpd"])),
                "",
                store.now_us(),
            )
        )
        journal.close()
        journal._database.close()
        told += int(last)

        assert told <= tokens // 7 <= told + 1
        assert money == tokens // 7 * 1000

        told = tokens // 7


def _now_us() -> int:
    return MemoryStore().now_us()


def test_a_rule_without_a_page_keeps_nothing() -> None:
    (rule,) = rules_of(["1000 tokens/day"])

    assert isinstance(rule, Rule)
    assert rule.meter(EPOCH).page is None
