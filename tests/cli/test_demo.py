"""`ratekeeper demo`: the story is played for real, and told as it was."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import signal
import subprocess

import pytest
from rich.console import Console

from ratekeeper.cli import night, screen
from ratekeeper.cli.night import SCRIPT, Call, Side
from ratekeeper.simulator.server import serving
from tests.cli.running import START


def test_the_night_is_eight_hundred_calls_in_thirty_seconds_and_its_users() -> None:
    calls = night.plan(2)
    script = [call.at_s for call in calls if call.who == SCRIPT]

    assert 800 == len(script)
    assert 29 < script[-1] - script[0] <= 30
    assert set(night.USERS) == {call.who for call in calls} - {SCRIPT}
    assert sorted(call.at_s for call in calls) == [call.at_s for call in calls]


def test_a_seed_tells_the_same_story_again() -> None:
    assert night.plan(5) == night.plan(5)
    assert night.plan(5) != night.plan(6)


@pytest.fixture(scope="module")
def short_night() -> tuple[Side, Side, list[float]]:
    """Seconds of it: a hundred and thirty stray calls, and three of the users'."""
    calls = [Call(0.015 * n, SCRIPT, 20) for n in range(130)]
    calls += [Call(0.5 + n, night.USERS[n], 20) for n in range(3)]
    calls.sort(key=lambda call: call.at_s)
    ticks: list[float] = []
    with serving(night.provider(1)) as bare, serving(night.provider(1)) as kept:

        async def play() -> tuple[Side, Side]:
            sides = (
                Side("without", bare, limited=False),
                Side("with", kept, limited=True, patience_s=4),
            )
            await night.play(sides, calls, ticks.append, every_s=0.1)
            return sides

        without, limited = asyncio.run(play())
    return without, limited, ticks


def test_without_ratekeeper_the_account_is_banned_for_everybody(
    short_night: tuple[Side, Side, list[float]],
) -> None:
    without = short_night[0].figures()

    assert 133 == without["reached_the_provider"]
    assert 1 == without["bans"]
    assert without["refused_with_429"] >= night.BAN_AFTER
    assert without["tokens_in_vain"] > 0
    assert without["users"]["answered"] < 3


def test_with_ratekeeper_no_429_and_the_script_held_to_its_share(
    short_night: tuple[Side, Side, list[float]],
) -> None:
    kept = short_night[1].figures()

    assert 0 == kept["refused_with_429"]
    assert 0 == kept["bans"]
    assert 0 == kept["tokens_in_vain"]
    assert 0 < kept["script"]["answered"] <= 15
    assert 130 == kept["script"]["answered"] + kept["script"]["held_back"]
    assert 3 == kept["users"]["answered"]


def test_the_spend_of_a_caller_nobody_named_stops_at_its_budget(
    short_night: tuple[Side, Side, list[float]],
) -> None:
    without, kept = (side.figures()["script"]["spent_usd"] for side in short_night[:2])

    assert 0 < kept <= 0.10
    assert without > 2 * kept


def test_what_callers_saw_is_what_the_providers_counted(
    short_night: tuple[Side, Side, list[float]],
) -> None:
    for side in short_night[:2]:
        figures = side.figures()
        for tally, told in (
            (side.script, figures["script"]),
            (side.users, figures["users"]),
        ):
            assert 0 == tally.open
            assert tally.answered == told["answered"]
            assert tally.refused == told["refused_with_429"]
            assert tally.asked == told["asked"]


def test_it_ticks_while_it_plays(short_night: tuple[Side, Side, list[float]]) -> None:
    ticks = short_night[2]

    assert sorted(ticks) == ticks
    assert len(ticks) > 10


def drawn(sides: tuple[Side, ...], encoding: str, now_s: float) -> list[str]:
    """Draw a frame onto a terminal of 80 columns."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    console.print(screen.Screen(console, sides).frame(now_s))
    file.flush()
    return raw.getvalue().decode(encoding).rstrip("\n").split("\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_frame_fits_a_terminal_of_eighty_by_twenty_four(
    short_night: tuple[Side, Side, list[float]], encoding: str
) -> None:
    without, kept, _ = short_night
    fresh = (Side("a", "", limited=False), Side("b", "", limited=True))
    opening = screen.opening().split("\n")
    for sides, now_s in ((fresh, 0.0), ((without, kept), 20.0), ((kept, kept), 60.0)):
        lines = opening + drawn(sides, encoding, now_s)

        assert len(lines) <= 24
        assert all(len(line.rstrip()) <= 80 for line in lines)
        assert any("fired" in line for line in lines)


def test_a_frame_shows_the_ban_on_the_side_that_met_it(
    short_night: tuple[Side, Side, list[float]],
) -> None:
    without, kept, _ = short_night
    account = next(x for x in drawn((without, kept), "utf-8", 9) if "account" in x)

    assert account.index("BANNED until 06:00") < account.index("open")


def test_lines_for_a_pipe_fit_eighty_columns(
    short_night: tuple[Side, Side, list[float]],
) -> None:
    told = screen.line(59.0, short_night[:2])

    assert told.startswith("02:00:59  without ")
    assert all(len(line) <= 80 for line in told.split("\n"))


def test_the_table_at_the_end_fits_and_shows_what_was_counted(
    short_night: tuple[Side, Side, list[float]],
) -> None:
    without, kept, _ = short_night
    figures = {"without": without.figures(), "with": kept.figures()}
    file = io.StringIO()
    Console(file=file, width=80).print(
        screen.summary(figures), screen.closing(55, ".venv/bin/ratekeeper")
    )
    lines = file.getvalue().split("\n")
    held = next(line for line in lines if "held back by Ratekeeper" in line)

    assert all(len(line) <= 80 for line in lines)
    assert f" {kept.script.held} │" in held
    assert any(
        line.endswith(": .venv/bin/ratekeeper simulate openai") for line in lines
    )
    assert any("without" in line and "with Ratekeeper" in line for line in lines)


def test_on_a_terminal_it_draws_live_and_gives_the_screen_back() -> None:
    try:
        ours, theirs = pty.openpty()
    except OSError:  # a container or a chroot without /dev/pts
        pytest.skip("this machine has no pseudo-terminals")
    with subprocess.Popen(
        [*START, "demo"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    ) as process:
        os.close(theirs)
        seen = b""
        while seen.count(b"LOAD TEST") < 6:  # three frames of two columns
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how a pty says that it has ended
            while more := os.read(ours, 65536):
                seen += more
    os.close(ours)

    assert 130 == process.returncode
    assert b"Traceback" not in seen
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")  # the cursor is back


def play() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*START, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_interrupted_it_exits_130_without_a_trace() -> None:
    with play() as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("02:00:00"):
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=15)

    assert 130 == process.returncode
    assert "" == err.strip()


def test_a_reader_who_has_gone_ends_it_quietly() -> None:
    with play() as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(timeout=15)

    assert 1 == process.returncode
    assert "" == err


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_whole_night_ends_in_time_and_its_figures_add_up() -> None:
    done = subprocess.run(
        [*START, "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    figures = json.loads(done.stdout)
    kept = figures["with"]

    assert (0, "") == (done.returncode, done.stderr)
    assert figures["seconds"] < 90
    assert figures["without"]["refused_with_429"] > 600
    assert 1 == figures["without"]["bans"]
    assert (0, 0, 0) == (kept["refused_with_429"], kept["bans"], kept["tokens_in_vain"])
    assert kept["users"]["answered"] == kept["users"]["asked"]
    assert (
        kept["script"]["spent_usd"] <= 0.10 < figures["without"]["script"]["spent_usd"]
    )
    for side in (figures["without"], kept):
        script = side["script"]
        ends = ("answered", "refused_with_429", "held_back", "failed")
        assert sum(script[end] for end in ends) == script["asked"] == 800
