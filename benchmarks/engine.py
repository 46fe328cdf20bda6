"""`make bench-engine`: what a grant costs, in time and in memory, beside the others.

Acquire and settle on requests + tokens, and one limit alone; threads and tasks. Rounds
are interleaved and every figure is a median, so a busy moment of the machine falls on
all alike; ratios compare within a round. Time is the process's CPU time: of Python's
threads one runs at a time, so on a quiet machine it is the time that passes, and on a
busy one it leaves the others' share out. Checks the bars.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import sys
import threading
import time
from typing import Any

from benchmarks import contestants, memory, peers

ROUNDS = 11
ROUND_S = 0.12  # for each contestant
TASKS, THREADS = 1_000, 8
TIMES_FLOOR = 8.0
SHAPES = ("1 thread", "8 threads", "1 task", "1,000 tasks")


def seconds(shape: str, make: Any, n: int) -> float:
    """Time `n` operations of a new contestant in one shape."""
    if shape.endswith("thread"):
        loop = make()
        return _timed(lambda: loop(n))
    if shape.endswith("threads"):
        return _threads(make(), n)
    return asyncio.run(_tasks(make, n, 1 if shape == "1 task" else TASKS))


def _timed(what: Any) -> float:
    began = time.process_time()
    what()
    return time.process_time() - began


def _threads(loop: Any, n: int) -> float:
    threads = [
        threading.Thread(target=loop, args=(max(1, n // THREADS),))
        for _ in range(THREADS)
    ]

    def run() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _timed(run) * n / (max(1, n // THREADS) * THREADS)


async def _tasks(make: Any, n: int, tasks: int) -> float:
    """Time tasks that each do their share; of many, a pause lets the others in."""
    loop = make()  # here, as some begin a task of their own
    each = max(1, n // tasks)
    began = time.process_time()
    if tasks == 1:
        await loop(each, pause=False)
    else:
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(loop(each, pause=True))
    return (time.process_time() - began) * n / (each * tasks)


def _size(shape: str, make: Any) -> int:
    """Find how many operations fill a round."""
    n = TASKS if shape == "1,000 tasks" else 64
    while (took := seconds(shape, make, n)) < ROUND_S / 8:
        n *= 4
    return max(n // 4, int(n * ROUND_S / took))


Entry = tuple[str, str, Any, Any]
Costs = dict[tuple[str, str], list[float]]  # microseconds, by contestant and shape


def measure(entries: list[Entry], rounds: int) -> Costs:
    """Time every contestant in every shape it knows, round after round."""
    costs: Costs = {}
    sizes: dict[tuple[str, str], int] = {}
    for at in range(rounds + 1):
        for shape in SHAPES:
            for name, _, sync, tasks in entries:
                make = sync if shape.endswith(("thread", "threads")) else tasks
                if make is None:
                    continue
                if at == 0:
                    sizes[name, shape] = _size(shape, make)
                    continue
                n = sizes[name, shape]
                took = seconds(shape, make, n)
                costs.setdefault((name, shape), []).append(took / n * 1e6)
    return costs


def ratio(costs: Costs, shape: str, one: str, other: str) -> float:
    """Return how many times what `other` costs `one` does, as a median of rounds."""
    pairs = zip(costs[one, shape], costs[other, shape], strict=True)
    return statistics.median(a / b for a, b in pairs)


def table(title: str, entries: list[Entry], costs: Costs, ours: str) -> str:
    """Return a Markdown table: microseconds, and in brackets times what ours costs."""
    lines = [f"### {title}", "", f"| µs (times ours) | {' | '.join(SHAPES)} |"]
    lines.append("|---|" + "---:|" * len(SHAPES))
    for name, *_ in entries:
        cells = []
        for shape in SHAPES:
            if (name, shape) not in costs:
                cells.append("")
                continue
            base = ours if (ours, shape) in costs else name
            times = ratio(costs, shape, name, base)
            cells.append(f"{statistics.median(costs[name, shape]):.2f} ({times:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def missed(both: Costs, one: Costs) -> list[str]:
    """List the bars that are not cleared."""
    found = []
    floor = contestants.BOTH[0][0]
    for name, shape in both:
        if name == floor:
            times = ratio(both, shape, "ratekeeper", floor)
            if times > TIMES_FLOOR:
                found.append(f"{shape}: {times:.1f} times the floor")
        elif name != "ratekeeper" and ratio(both, shape, name, "ratekeeper") < 1:
            found.append(f"{shape}: behind {name}")
    behind = ("limits", "pyrate", "throttled")
    for name, shape in one:
        ours = "ratekeeper, sliding window"
        if name.startswith(behind) and ratio(one, shape, name, ours) < 1:
            found.append(f"one limit, {shape}: behind {name}")
    return found


def present(entries: tuple[Entry, ...]) -> list[Entry]:
    """Leave out what is not installed."""
    return [x for x in entries if not x[1] or importlib.util.find_spec(x[1])]


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="bench-engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    found, missing = peers.present()
    both, one = present(contestants.BOTH), present(contestants.ONE)
    both_costs, one_costs = measure(both, rounds), measure(one, rounds)
    print(table("Requests + tokens: acquire, settle", both, both_costs, "ratekeeper"))
    ours = "ratekeeper, sliding window"
    print("\n" + table("One limit: acquire", one, one_costs, ours) + "\n")
    rows = memory.measure_all()
    print(memory.table(rows) + "\n")
    print(*peers.versions(found), *missing, sep="\n")
    wrong = missed(both_costs, one_costs) + memory.missed(rows)
    print(f"bars: {'MISSED' if wrong else 'all cleared'}", *wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
