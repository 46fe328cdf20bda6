"""Pool: jobs spread over every core there is, each in a process with virtual time."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from benchmarks import virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Job = TypeVarTuple("Job")
Found = TypeVar("Found")


def spread(
    measure: Callable[[*Job], Found], jobs: Sequence[tuple[*Job]]
) -> dict[tuple[*Job], Found]:
    """Measure every job; the results stand in the order of the jobs.

    Virtual time is installed before a worker imports the peers.
    """
    done: dict[tuple[*Job], Found] = {}
    spawn = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with concurrent.futures.ProcessPoolExecutor(
        cores, mp_context=spawn, initializer=virtual.install
    ) as workers:
        futures = {workers.submit(measure, *job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            done[futures[future]] = future.result()
            if sys.stderr.isatty():
                print(f"\r{len(done)} of {len(jobs)}", end="", file=sys.stderr)
    return {job: done[job] for job in jobs}
