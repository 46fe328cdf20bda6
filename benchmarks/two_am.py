"""`make bench-night`: the 2 a.m. story over real HTTP, against each gateway.

Under 60 requests, then under 10,000 tokens a minute for each client key: 200 callers at
once, 800 in half a minute, and 120 about a boundary: one as a minute of the clock begins,
59 in its last second, 60 in the next minute's first, whether minutes are the clock's or
begin with the first call. The upstream notes what comes through, and a naive log judges
it. Those of the 200 that were refused come back at the moment they were told. Returns 1
where Ratekeeper misses a bar. Arguments are the gateways to look at: `ARGS=Ratekeeper`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import time
from typing import TYPE_CHECKING

import uvloop

from benchmarks.gateways import judge, load, process
from benchmarks.gateways.litellm import LiteLLM
from benchmarks.gateways.measure import QUICK, bench, started
from benchmarks.gateways.nginx import Nginx
from benchmarks.gateways.ours import Ratekeeper
from benchmarks.gateways.peer import NEVER, Limits
from benchmarks.gateways.portkey import Portkey
from benchmarks.gateways.upstream import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gateways.load import Call, Target
    from benchmarks.gateways.measure import Bench
    from benchmarks.gateways.peer import Peer

RPM, TPM = 60, 10_000
PROMPT, COMPLETION = 491, 40  # what the one call of these stories uses (o200k_base)
WAIT_S = 90
LONGEST_S = 130  # nobody is awaited longer who was told to come back
SLACK_S = (
    0.05  # calls of two minutes may be that much nearer on arrival: the way varies
)
MINUTE_S = 60
EDGE, FLOOD, BURST, BACK = "edge", "flood", "burst", "back"
CALLS = {  # when, in seconds from the beginning of a minute
    EDGE: [
        0.1,  # begins a window of those that begin with a call
        *(59 + n / 59 for n in range(59)),
        *(60.5 + n / 60 for n in range(60)),
    ],
    FLOOD: [3.0] * 200,
    BURST: [10 + 30 * n / 800 for n in range(800)],
}
PROMPTLY_S = 1.0
HEAD = (
    "| let through, of what is allowed | 200 at once | 800 in 30 s | 120 about a boundary "
    "| worst 60 s there | worst 60 s | 429s | other errors | came back as told |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A limit: its name, what a client key is given, and how many calls that is."""

    name: str
    rpm: int
    tpm: int

    @property
    def calls(self) -> int:
        return min(self.rpm, self.tpm // (PROMPT + COMPLETION))


KINDS = (Kind("60 rpm", RPM, NEVER), Kind("10k tpm", NEVER, TPM))


@dataclasses.dataclass(slots=True, kw_only=True)
class Tale:
    """What one gateway made of the stories."""

    peer: Peer
    kind: Kind
    wait_s: int
    asked: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    through: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    statuses: dict[int, int] = dataclasses.field(default_factory=dict)
    told: int = 0  # refused calls that were told when to come back
    promised: int = 0  # came back then
    kept: int = 0  # and were let through at once
    more_s: float = 0.0  # the longest that one who was not was told then

    def note(self, call: Call) -> None:
        status = call.status if call.ended else 0
        self.statuses[status] = self.statuses.get(status, 0) + 1

    def most(self, *stories: str) -> int:
        times = [at for story in stories for at in self.through.get(story, [])]
        return judge.most(times, judge.WINDOW_US - int(SLACK_S * 1e6))

    def worst(self) -> int:
        """Return the most calls of one key in any minute of the whole night."""
        return max(self.most(EDGE), self.most(FLOOD, BACK), self.most(BURST))

    def allowed(self, story: str) -> int:
        wait_us = self.wait_s * 1_000_000
        return judge.allowed(self.asked[story], self.kind.calls, wait_us)

    def row(self) -> str:
        """Return its line in the table."""
        name = self.peer.name + (f", max_wait {self.wait_s}s" if self.wait_s else "")
        through = " | ".join(
            f"{len(self.through.get(story, []))} of {self.allowed(story)}"
            for story in (FLOOD, BURST, EDGE)
        )
        others = {n for n in self.statuses if n not in {200, 429}}
        failed = sum(self.statuses[n] for n in others)
        back = f"{self.kept} of {self.promised}" if self.told else "nothing told"
        if self.more_s:
            back += f", else up to {self.more_s:.3f} s more"
        return (
            f"| {name} | {through} | {self.most(EDGE)} | {self.worst()} "
            f"| {self.statuses.get(429, 0)} | {failed} | {back} |"
        )

    def missed(self) -> list[str]:
        """List the bars this tale does not clear."""
        name, found = f"{self.peer.name}, {self.kind.name}, wait {self.wait_s}", []
        if self.worst() > self.kind.calls:
            found.append(f"{name}: {self.worst()} calls in a minute")
        for story in CALLS:
            through, allowed = len(self.through.get(story, [])), self.allowed(story)
            if through < allowed - self.spare():
                found.append(f"{name}, {story}: {through} of {allowed} let through")
        if self.kept < self.promised:
            vain = self.promised - self.kept
            found.append(f"{name}: {vain} of {self.promised} came back in vain")
        return found

    def spare(self) -> int:
        """Say how many calls estimates may cost: they add up to one too few a minute."""
        windows = 1 + self.wait_s // MINUTE_S
        return windows if self.kind.tpm < NEVER else 0


class Night:
    """The callers of one gateway: each story has a client key of its own."""

    def __init__(self, tale: Tale, targets: Sequence[Target]) -> None:
        self.tale = tale
        self._target = dict(zip(CALLS, targets, strict=True))

    async def pass_by(self, minute: float) -> None:
        """Tell all three stories; `minute` is when one begins, on the loop's clock."""
        async with asyncio.TaskGroup() as group:
            for story in CALLS:
                group.create_task(self._story(story, minute))

    async def _story(self, story: str, minute: float) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            for at_s in CALLS[story]:
                await asyncio.sleep(max(0.0, minute + at_s - loop.time()))
                group.create_task(self._ask(story))

    async def _ask(self, story: str) -> None:
        now_us = time.monotonic_ns() // 1000
        self.tale.asked.setdefault(story, []).append(now_us)
        call = await self._call(story, story)
        self.tale.note(call)
        if story == FLOOD and call.status == 429:
            await self._come_back(call)

    async def _come_back(self, refused: Call) -> None:
        wait_s = told_s(refused)
        if wait_s is None:
            return
        self.tale.told += 1
        if wait_s > LONGEST_S:
            return
        await asyncio.sleep(refused.ended + wait_s - time.perf_counter())
        call = await self._call(FLOOD, BACK)
        prompt = call.ended - call.began < PROMPTLY_S
        self.tale.promised += 1
        self.tale.kept += call.is_answered and prompt
        if call.status == 429:
            self.tale.more_s = max(self.tale.more_s, told_s(call) or 0)

    async def _call(self, story: str, tag: str) -> Call:
        target = self._target[story]
        caller = load.Caller(target)
        call = await caller.ask(target.request(0, user=tag, max_tokens=COMPLETION))
        caller.close()
        return call


def told_s(refused: Call) -> float | None:
    """Return when a refused caller was told to come back, as finely as it was."""
    if milliseconds := refused.headers.get("retry-after-ms"):
        return float(milliseconds) / 1e3
    seconds = refused.headers.get("retry-after")
    return float(seconds) if seconds else None


def peers(names: Sequence[str]) -> list[tuple[Peer, int]]:
    """Return whom the story is told of, and how long their callers wait."""
    known: list[tuple[Peer, int]] = [
        (Ratekeeper(), 0),
        (Ratekeeper(), WAIT_S),
        (LiteLLM(), 0),
        (Nginx(), 0),
        (Portkey(), 0),
    ]
    return [one for one in known if not names or one[0].name.split()[0] in names]


def tell(kind: Kind, names: Sequence[str]) -> list[Tale]:
    """Play a night under one limit, to all gateways at once."""
    with contextlib.ExitStack() as stack:
        heres: list[Bench] = []
        nights: list[Night] = []
        for peer, wait_s in peers(names):
            if why := peer.missing():
                print(f"left out: {why}", flush=True)
                continue
            here = stack.enter_context(bench(QUICK))
            limits = Limits(rpm=kind.rpm, tpm=kind.tpm, max_wait_s=wait_s)
            # LiteLLM, which needs it, has a core to itself.
            slow = isinstance(peer, LiteLLM)
            core = process.GATEWAY_CORE if slow else process.LOAD_CORE
            _, targets = stack.enter_context(
                started(peer, here.port, limits, keys=len(CALLS) + 1, core=core)
            )
            uvloop.run(warm(targets.pop()))
            here.turn(Plan(prompt=PROMPT, completion=COMPLETION, noted=1))
            tale = Tale(peer=peer, kind=kind, wait_s=wait_s)
            heres.append(here)
            nights.append(Night(tale, targets))
        uvloop.run(pass_by(nights))
        for here, night in zip(heres, nights, strict=True):
            for at_us, tag in here.seen()["calls"]:
                night.tale.through.setdefault(tag, []).append(at_us)
    return [night.tale for night in nights]


async def warm(target: Target) -> None:
    """Wait until it answers, with a client key that no story uses."""
    status = 0
    for _ in range(100):
        caller = load.Caller(target)
        call = await caller.ask(target.request(0))
        caller.close()
        if call.is_answered:
            return
        status = call.status
        await asyncio.sleep(0.2)
    message = f"it answers {status}"
    raise RuntimeError(message)


async def pass_by(nights: Sequence[Night]) -> None:
    """Wait for a minute of the clock and play all nights around it."""
    left_s = MINUTE_S - time.time_ns() / 1e9 % MINUTE_S
    minute = asyncio.get_running_loop().time() + left_s
    await asyncio.gather(*(night.pass_by(minute) for night in nights))


def main() -> int:
    """Play both nights, print the tables, and return 1 if a bar is missed."""
    wrong: list[str] = []
    for kind in KINDS:
        tales = tell(kind, sys.argv[1:])
        print(f"\n{kind.name}: {kind.calls} calls a minute\n")
        print(*HEAD, sep="\n")
        print(*(tale.row() for tale in tales), sep="\n", flush=True)
        for tale in tales:
            wrong += tale.missed() if isinstance(tale.peer, Ratekeeper) else []
    print(f"\nbars: {'MISSED' if wrong else 'all cleared'}", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
