"""Two hundred tasks at a small account for ten minutes, and every form of a hint."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
from typing import TYPE_CHECKING, Any

import httpx2
import openai
import pytest

from ratekeeper import LimitExceeded, ProviderThrottled
from ratekeeper.simulator.cues import FaultPlan
from ratekeeper.testing.clock import EPOCH
from tests.client.demand import (
    CLIENTS,
    FLIGHT_S,
    LOADS,
    MINUTES,
    MODELS,
    RPM,
    WARM_UP_S,
    Account,
    beside,
    demand,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.client.demand import Figures

    Hint = Callable[[float], dict[str, str]]

HINT_S = 7.0
NO_HINT_S = 1.0  # a 429 without a hint pauses its limit for so long
SPACING_S = 2.0  # of calls at the paced rate, doubled
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 20,
}


def play(account: Account, client: str, load: str, **size: int) -> Figures:
    """Play full demand, for ten minutes unless said."""

    async def main() -> None:
        ask, close = account.open(client)
        await demand(ask, LOADS[load], **size)
        await close()

    account.run(main())
    return account.figures()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("client", "load"),
    [
        ("AsyncClient", "requests bind"),
        ("AsyncClient", "tokens bind"),
        ("AsyncOpenAI", "requests bind"),
    ],
)
def test_a_small_account_is_used_up_and_refuses_next_to_nothing(
    client: str, load: str, model: str
) -> None:
    found = play(Account(*MODELS[model]), client, load)

    assert found.refused <= 0.01, found
    assert found.used >= 0.95, found
    assert found.attempts <= 1.05 * found.requests, found


def date_of(now_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(EPOCH / 1e6 + now_s, tz=datetime.UTC)
    return email.utils.format_datetime(moment, usegmt=True)


TRUE_HINTS: dict[str, Hint] = {
    "seconds": lambda _: {"retry-after": f"{HINT_S:g}"},
    "milliseconds": lambda _: {"retry-after-ms": f"{HINT_S * 1000:g}"},
    "a date": lambda now_s: {
        "date": date_of(now_s),
        "retry-after": date_of(int(now_s) + HINT_S),
    },
}
ABSURD_HINTS = ["", "-1", "NaN", "inf", "3456000", "soon"]  # 40 days among them


class Hints:
    """Puts a hint of its own into each 429, and keeps when that was."""

    def __init__(self, hint: Hint) -> None:
        self.hint = hint
        self.given_s: list[float] = []
        self.account = Account(
            *MODELS["token bucket"],
            edit=self.edit,
            faults=FaultPlan(rates={"status=429": 0.05}),
        )

    def waits_s(self, client: str) -> list[float]:
        """Play some minutes; return, for each 429, how long nothing came after it.

        What was on its way already is not counted.
        """
        play(self.account, client, "requests bind", tasks=20, minutes=4)
        came = [at_s for at_s, _ in self.account.provider.log]
        waits = []
        for given_s in self.given_s:
            later = (at_s for at_s in came if at_s > given_s + FLIGHT_S[1])
            first_s = next(later, None)
            if first_s is not None:
                waits.append(first_s - given_s)
        return waits

    def edit(self, request: httpx2.Request, answer: httpx2.Response) -> httpx2.Response:
        """Write the hint in its form, with no other beside it."""
        del request
        if answer.status_code != 429:
            return answer
        now_s = self.account.loop.time()
        self.given_s.append(now_s)
        error = {"message": "Slow down.", "code": "rate_limit_exceeded"}
        return httpx2.Response(429, headers=self.hint(now_s), json={"error": error})


# The SDK holds a date against the clock of this machine, which is not the virtual one.
@pytest.mark.parametrize(
    ("client", "form"),
    [
        *(("AsyncClient", form) for form in TRUE_HINTS),
        ("AsyncOpenAI", "seconds"),
        ("AsyncOpenAI", "milliseconds"),
    ],
)
def test_nothing_comes_before_the_hint_and_much_soon_after(
    client: str, form: str
) -> None:
    waits_s = Hints(TRUE_HINTS[form]).waits_s(client)
    least_s = HINT_S - (form == "a date")  # a date has no fractions of a second

    assert len(waits_s) > 5
    assert least_s <= min(waits_s)
    assert max(waits_s) <= HINT_S + SPACING_S


@pytest.mark.parametrize("value", ABSURD_HINTS)
def test_an_absurd_hint_is_no_hint(value: str) -> None:
    waits_s = Hints(lambda _: {"retry-after": value}).waits_s("AsyncClient")

    assert len(waits_s) > 5
    assert NO_HINT_S <= min(waits_s)
    assert max(waits_s) <= NO_HINT_S + SPACING_S


@pytest.mark.parametrize("client", CLIENTS)
def test_a_hint_beyond_the_deadline_ends_all_that_wait_at_once(client: str) -> None:
    plan = FaultPlan(script={5: "status=429, retry-after=90"})
    account = Account(*MODELS["token bucket"], faults=plan)
    ended: list[tuple[float, Exception]] = []

    async def main() -> None:
        ask, close = account.open(client, timeout=30)

        async def call(seed: int) -> None:
            try:
                await ask(**CHAT, seed=seed)
            except (LimitExceeded, ProviderThrottled, openai.RateLimitError) as error:
                ended.append((account.loop.time(), error))

        async with asyncio.TaskGroup() as group:
            for seed in range(20):
                group.create_task(call(seed))
        await close()

    account.run(main())
    refused_s = next(at_s for at_s, status, _ in account.seen if status == 429)
    # The SDK's own call waits for the hint: its time-out is for one attempt.
    good = [at_s for at_s, status, _ in account.seen if status == 200]
    came = [at_s for at_s, _ in account.provider.log]
    left_s = [_wait_s(error) + at_s - refused_s for at_s, error in ended]

    assert len(ended) > 10
    assert 20 == len(ended) + len(good)
    assert {refused_s} == {at_s for at_s, _ in ended}
    assert all(90 <= left <= 90 + 20 for left in left_s), left_s
    assert not [at_s for at_s in came if FLIGHT_S[1] < at_s - refused_s < 90]


def _wait_s(error: Any) -> float:
    """Return the wait that an error tells of."""
    if isinstance(error, openai.RateLimitError):
        return float(error.response.headers["retry-after-ms"]) / 1000
    wait_s: float = error.retry_after_s
    return wait_s


@pytest.mark.parametrize("client", CLIENTS)
def test_a_program_beside_ours_is_made_room_for(client: str) -> None:
    """It has a third of the account to itself, and neither knows of the other."""
    account = Account(*MODELS["token bucket"])
    rows: list[tuple[float, int]] = []

    async def main() -> None:
        other = asyncio.create_task(beside(account, rows, rpm=RPM // 3))
        ask, close = account.open(client, timeout=3600)
        await demand(ask, LOADS["requests bind"], tasks=20)
        other.cancel()
        await close()

    account.run(main())
    ours = [(at_s, status) for at_s, status, _ in account.seen]
    warm = [status for at_s, status in ours + rows if at_s >= WARM_UP_S]
    used = warm.count(200) / RPM / (MINUTES - WARM_UP_S / 60)

    assert warm.count(429) <= 0.01 * len(warm), account.figures()
    assert used >= 0.95, account.figures()
