"""What is peculiar to threads: real parking, interrupts, and threads that end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from typing import Any

import pytest

from ratekeeper import ConfigError, Limiter, LimitExceeded, MemoryStore
from ratekeeper.core import plans
from ratekeeper.core.line import Waiter
from ratekeeper.runtime import sync
from ratekeeper.testing import ManualClock
from tests.flows.world import assert_idle

PATIENCE_S = 5.0


def until(condition: Any) -> None:
    """Wait in real time for what another thread is about to do."""
    pause = threading.Event()
    for _ in range(5000):
        if condition():
            return
        pause.wait(0.001)
    raise TimeoutError


def test_waiting_starts_no_thread() -> None:
    limiter = Limiter("1 concurrent")
    holder = limiter.acquire()
    before = threading.active_count()
    waiting = [
        threading.Thread(target=lambda: limiter.acquire().settle()) for _ in range(5)
    ]
    for thread in waiting:
        thread.start()
    until(lambda: limiter._store._waiting == 5)

    assert before + 5 == threading.active_count()

    holder.settle()
    for thread in waiting:
        thread.join(PATIENCE_S)
    assert_idle(limiter._store)


def test_a_parked_thread_does_not_look_until_it_is_told() -> None:
    clock = ManualClock()
    limiter = Limiter("60 rpm burst 1", store=MemoryStore(clock=clock))
    looks: list[int] = []
    look_again = limiter._store.look_again

    def counted(waiter: Waiter) -> None:
        looks.append(clock.now_us())
        look_again(waiter)

    limiter._store.look_again = counted  # type: ignore[method-assign]
    start_us = clock.now_us()
    clock.run(*[limiter.acquire] * 4)

    assert [1, 2, 3] == sorted((at - start_us) // 1_000_000 for at in looks)


def test_an_interrupted_waiter_leaves_no_trace() -> None:
    limiter = Limiter("1 concurrent", "10 rpm")
    holder = limiter.acquire()
    main = threading.main_thread().ident
    assert main is not None
    interrupt = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        limiter.acquire(timeout=PATIENCE_S)
    interrupt.join()

    assert_idle(limiter._store)
    assert 1 == limiter.status()["10 requests/minute"].used

    holder.settle()

    assert limiter.try_acquire()


def test_an_interrupt_right_after_entering_the_line_leaves_no_trace() -> None:
    """The plan cleans up wherever its driver fails."""
    limiter = Limiter("1 concurrent")
    store = limiter._store
    limiter.acquire()
    waiter = Waiter([10**9], seat=sync.ThreadSeat(store))
    plan = plans.acquire(waiter)
    next(plan)
    store.enter(waiter, [(limiter._scope, "")])
    leave = plan.throw(KeyboardInterrupt())
    sync._perform(leave, store, ())
    with pytest.raises(KeyboardInterrupt):
        plan.send(None)

    assert_idle(store)


def test_a_thread_that_ended_in_line_is_passed_over() -> None:
    limiter = Limiter("1 concurrent")
    store = limiter._store
    holder = limiter.acquire()

    end = threading.Event()

    def stand_and_end() -> None:
        seat = sync.ThreadSeat(store)
        store.enter(Waiter([10**9], seat=seat), [(limiter._scope, "")])
        end.wait()

    # More than Python would let one call another.
    threads = [threading.Thread(target=stand_and_end) for _ in range(1200)]
    for thread in threads:
        thread.start()
    while store._waiting < len(threads):
        time.sleep(0.001)
    end.set()
    for thread in threads:
        thread.join()

    holder.settle()

    assert_idle(store)
    assert limiter.try_acquire()


def test_a_thread_is_woken_by_a_refund_in_real_time() -> None:
    limiter = Limiter("100 tpd")
    holder = limiter.acquire(tokens=100)
    refund = threading.Timer(0.05, holder.settle, kwargs={"tokens": 10})
    refund.start()
    begin = time.monotonic()
    limiter.acquire(tokens=50, timeout=PATIENCE_S * 1e5)

    assert time.monotonic() - begin < PATIENCE_S


def test_one_caller_that_waits_does_not_delay_another() -> None:
    limiter = Limiter("1 concurrent")
    holder = limiter.acquire(key="a")
    waiter = threading.Thread(target=lambda: limiter.acquire(key="a").settle())
    waiter.start()
    until(lambda: limiter._store._waiting == 1)
    begin = time.monotonic()
    with pytest.raises(LimitExceeded):
        limiter.acquire(key="a", timeout=0)
    grant = limiter.acquire(key="b")
    took_s = time.monotonic() - begin
    grant.settle()
    holder.settle()
    waiter.join()

    assert took_s < 0.5


@pytest.mark.parametrize(
    ("timeout", "error"),
    [
        ("5", TypeError),
        (True, TypeError),
        (1j, TypeError),
        (float("nan"), ConfigError),
    ],
)
def test_a_timeout_that_is_no_number_is_refused_even_where_nobody_waits(
    timeout: Any, error: type[Exception]
) -> None:
    limiter = Limiter("10 rpm")
    with pytest.raises(error, match="timeout"):
        limiter.acquire(timeout=timeout)

    assert 0 == limiter.status()["10 requests/minute"].used


@pytest.mark.parametrize("priority", ["urgent", "", None, 1])
def test_a_class_that_does_not_exist_is_refused(priority: Any) -> None:
    with pytest.raises(ConfigError, match="interactive, normal or batch"):
        Limiter("10 rpm").acquire(priority=priority)


@pytest.mark.parametrize("hold", [0, -1, float("nan"), 1e9, "5", True])
def test_a_hold_that_is_no_span_of_time_is_refused(hold: Any) -> None:
    with pytest.raises(ConfigError, match="hold="):
        Limiter("10 concurrent").acquire(hold=hold)


@pytest.mark.parametrize("key", [None, 5, b"team"])
def test_a_key_that_is_no_string_is_refused(key: Any) -> None:
    limiter = Limiter("10 rpm")
    with pytest.raises(TypeError, match="key="):
        limiter.acquire(key=key)
    with pytest.raises(TypeError, match="key="):
        limiter.try_acquire(key=key)


@pytest.mark.parametrize(
    ("cost", "hint"),
    [
        ({"token": 5}, "did you mean tokens="),
        ({"tokens": 5, "timout": 3}, "did you mean timeout="),
        ({"tokens": 5, "concurrent": 1}, "hold="),
        ({"tokens": 5, "images": 1}, "no limit here counts images="),
        ({}, "needs tokens="),
    ],
)
def test_a_cost_that_nothing_counts_is_named(cost: dict[str, int], hint: str) -> None:
    limiter = Limiter("10 rpm", "100 tpm", "3 concurrent")
    with pytest.raises(TypeError, match=hint):
        limiter.acquire(**cost)  # type: ignore[arg-type]  # mypy sees a keyword slip

    assert 0 == limiter.status()["10 requests/minute"].used


def test_code_that_knows_no_limits_may_state_all_the_usual_costs() -> None:
    limiter = Limiter("10 rpm")
    grant = limiter.acquire(tokens=500, input_tokens=400, output_tokens=100, usd="0.1")
    grant.settle(tokens=300, input_tokens=200, output_tokens=100, usd="0.05")

    assert 1 == limiter.status()["10 requests/minute"].used
    with pytest.raises(ConfigError):
        limiter.acquire(tokens=-1)


def test_units_of_ones_own_are_counted() -> None:
    limiter = Limiter("10 images/minute")
    limiter.acquire(images=4).settle(images=3)

    assert 3 == limiter.status()["10 images/minute"].used


def test_a_second_settle_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    grant = Limiter("10 rpm").acquire()
    for _ in range(5):
        grant.settle()

    assert 1 == len(caplog.records)
    assert "settled twice" in caplog.text


def test_limiters_of_one_name_may_name_their_limits_in_any_order() -> None:
    store = MemoryStore()
    one = Limiter("10 rpm", "100 tpm", store=store, name="n")
    two = Limiter("100 tpm", "10 rpm", store=store, name="n")
    two.acquire(tokens=7, requests=2)

    assert 7 == one.status()["100 tokens/minute"].used
    assert 2 == one.status()["10 requests/minute"].used
    with pytest.raises(ConfigError, match="already limits"):
        Limiter("10 rpm", store=store, name="n")


def test_a_change_to_other_limits_is_refused_in_words_that_fit_a_nameless_limiter() -> (
    None
):
    limiter = Limiter("10 rpm", "100 tpm")
    with pytest.raises(ConfigError, match="this limiter keeps 10 requests/minute, 100"):
        limiter.update("10 rpm")


def test_a_default_store_is_shared_by_name_alone() -> None:
    one, two = (Limiter("10 rpm", name="tests/flows/shared") for _ in range(2))
    one.acquire()

    assert 1 == two.status()["10 requests/minute"].used
    assert 0 == Limiter("10 rpm").status()["10 requests/minute"].used


def test_limits_of_one_call_live_in_one_store() -> None:
    with pytest.raises(ConfigError, match="one store"):
        Limiter("10 rpm").acquire(also=[(Limiter("10 rpm"), "")])


def test_one_call_names_a_limit_once() -> None:
    limiter = Limiter("10 rpm")
    with pytest.raises(ConfigError, match="twice"):
        limiter.acquire(also=[(limiter, "")])


def test_a_store_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="memory://"):
        Limiter("10 rpm", store="nowhere://x")


def test_the_repr_shows_limits_and_no_keys() -> None:
    limiter = Limiter("10 rpm", "$5/day", name="team")
    grant = limiter.acquire(key="secret-key", usd="0.1")

    assert "Limiter('10 requests/minute', '$5/day', name='team')" == repr(limiter)
    assert "<Grant open: 10 requests/minute, $5/day>" == repr(grant)


def test_a_log_filter_that_fails_costs_no_grant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter = Limiter("10 rps", store=MemoryStore(clock=ManualClock(auto=True)))
    log = logging.getLogger("ratekeeper")

    def fails(record: logging.LogRecord) -> bool:
        raise RuntimeError(record.msg)

    limiter.acquire(requests=10)
    log.addFilter(fails)
    try:
        with caplog.at_level("INFO", "ratekeeper"), pytest.raises(RuntimeError):
            limiter.acquire(requests=10)
    finally:
        log.removeFilter(fails)

    assert 0 == limiter.status()["10 requests/second"].used
