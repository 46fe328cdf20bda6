"""Screen: how the 2 a.m. story looks, live on a terminal or as lines in a pipe.

It draws what a side has counted and adds nothing: no figure is made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ratekeeper.cli.night import (
    BAN_AFTER,
    BAN_HOURS,
    BUDGET,
    CALLS,
    FIRED_FOR_S,
    FIRED_FROM_S,
    LIMITS,
    SCRIPT,
    SHARE,
    USERS,
    paid,
)
from ratekeeper.core.units import money, show_money

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from rich.console import RenderableType

    from ratekeeper.cli.night import Side, Tally

WIDTH = 80  # of a terminal nobody has widened
_INSIDE = WIDTH // 2 - 4  # of a column: its frame takes four
_GOOD, _BAD, _HELD, _NOTHING = "green", "red", "yellow", "dim"


class Screen:
    """Draws two sides, next to each other."""

    def __init__(self, console: Console, sides: Sequence[Side]) -> None:
        self._sides = sides
        plain = console.options.ascii_only
        self._full, self._yes, self._no = "#.x" if plain else "█●✗"

    def frame(self, now_s: float) -> RenderableType:
        """Draw the moment."""
        panels = [
            Panel(
                self._column(side),
                title=f"[bold]{side.name}[/]",
                border_style=_BAD if side.banned_at_s is not None else "default",
                width=WIDTH // 2,
            )
            for side in self._sides
        ]
        return Group(_headline(now_s), Columns(panels, padding=0))

    def _column(self, side: Side) -> RenderableType:
        script, users, seen = side.script, side.users, side.seen
        refused = seen.get("by_status", {}).get("429", 0)
        return Group(
            _line("LOAD TEST", f"{script.asked} of {CALLS} fired"),
            self._bar(script),
            _count("answered", script.answered, _GOOD),
            _count("refused with 429", script.refused, _BAD),
            _count("held back by Ratekeeper", script.held, _HELD),
            _count("waiting", script.open, ""),
            _line("  spent", _dollars(side)),
            Text(),
            _line("OTHER USERS", f"{users.asked} asked"),
            self._dots(users),
            _count("answered", users.answered, _GOOD),
            _count("refused with 429", users.refused, _BAD),
            _count("held back by Ratekeeper", users.held, _HELD),
            Text(),
            _line("PROVIDER", f"{seen.get('requests', 0)} received"),
            _count("answered with 429", refused, _BAD),
            _count("tokens sent in vain", seen.get("tokens_in_vain", 0), _BAD),
            _line("  account", _ban(side)),
        )

    def _bar(self, script: Tally) -> Text:
        """Draw what became of the script's calls, as parts of one bar."""
        bar, drawn = Text(), 0
        done = 0
        for count, style in (
            (script.answered, _GOOD),
            (script.refused + script.failed, _BAD),
            (script.held, _HELD),
        ):
            done += count
            end = done * _INSIDE // CALLS
            bar.append(self._full * (end - drawn), style=style)
            drawn = end
        return bar

    def _dots(self, users: Tally) -> Text:
        """Draw one mark for each of the users' calls."""
        dots = Text()
        for good in users.outcomes[-_INSIDE:]:
            dots.append(self._yes if good else self._no, style=_GOOD if good else _BAD)
        return dots


def _headline(now_s: float) -> Text:
    text = Text()
    text.append(f" {_clock(now_s)} ", style="bold reverse")
    if now_s < FIRED_FROM_S:
        text.append(" A quiet night: three programs use one account.")
    elif now_s < FIRED_FROM_S + FIRED_FOR_S:
        text.append(
            f" A stray load test fires {CALLS} calls in {FIRED_FOR_S:.0f} s at production.",
            style="bold",
        )
    else:
        text.append(" The load test is over; the other users still want answers.")
    return text


def _clock(now_s: float) -> str:
    """Tell the time of the story: it begins at 2 a.m."""
    minutes, seconds = divmod(int(now_s), 60)
    return f"02:{minutes:02}:{seconds:02}"


def _line(name: str, said: str | Text) -> Text:
    """Set a name at the left and what is said of it at the right; heads are capitals."""
    said = Text(said) if isinstance(said, str) else said
    text = Text().append(name, style="bold" if name.isupper() else "")
    text.append(" " * max(1, _INSIDE - text.cell_len - said.cell_len))
    return text.append_text(said)


def _count(name: str, count: int, style: str) -> Text:
    said = Text(f"{count:,}", style=style if count else _NOTHING)
    return _line(f"  {name}", said)


def _dollars(side: Side) -> Text:
    spent = paid(side.seen.get("by_key", {}).get(f"sk-{SCRIPT}", {}))
    return Text(_sum(spent), style="" if spent else _NOTHING)


def _sum(usd: Decimal | float) -> str:
    return show_money(money(str(usd)), "usd")


def _ban(side: Side) -> Text:
    if side.banned_at_s is None:
        return Text("open", style=_GOOD)
    return Text(f"BANNED until 0{2 + BAN_HOURS}:00", style=f"bold {_BAD}")


def opening() -> str:
    """Say what will be played, before it is."""
    return (
        f"An account of {', '.join(LIMITS)}; {BAN_AFTER} refusals in a minute ban it for "
        f"{BAN_HOURS} hours.\n"
        f"{len(USERS)} programs share it, then a load test joins by mistake; both sides "
        f"see the same.\nWith Ratekeeper a caller may have {SHARE}, one nobody has named "
        f"{BUDGET}."
    )


def line(now_s: float, sides: Sequence[Side]) -> str:
    """Tell the moment, for a pipe: a line for each side."""
    told = []
    for side in sides:
        script, users = side.script, side.users
        kept = f", {script.held} held" if script.held else ""
        told.append(
            f"{side.name.split()[0]:8} load test {script.answered} answered, "
            f"{script.refused} refused{kept}; users {users.answered} of {users.asked}"
            + ("; BANNED" if side.banned_at_s is not None else "")
        )
    return f"{_clock(now_s)}  " + "\n          ".join(told)


def summary(figures: dict[str, Any]) -> Table:
    """Draw the one table at the end."""
    table = Table(title="The night, as the two providers saw it", width=WIDTH)
    table.add_column("")
    table.add_column("without", justify="right")
    table.add_column("with Ratekeeper", justify="right")
    without, kept = figures["without"], figures["with"]

    def row(
        name: str,
        *path: str,
        bad: bool = False,
        form: Callable[[Any], str] = "{:,}".format,
    ) -> None:
        cells = []
        for side in (without, kept):
            value: Any = side
            for step in path:
                value = value[step]
            style = _NOTHING if not value else _BAD if bad else ""
            cells.append(Text(form(value), style=style))
        table.add_row(name, *cells)

    row("calls that reached the provider", "reached_the_provider")
    row("answered with 429", "refused_with_429", bad=True)
    row(f"bans of {BAN_HOURS} hours", "bans", bad=True)
    row("prompt tokens sent in vain", "tokens_in_vain", bad=True)
    table.add_section()
    row("load test: calls fired", "script", "asked")
    row("  answered", "script", "answered")
    row("  refused with 429", "script", "refused_with_429", bad=True)
    row("  held back by Ratekeeper, never sent", "script", "held_back")
    row(f"  spent, of a budget of {BUDGET}", "script", "spent_usd", form=_sum)
    table.add_section()
    row("other users: calls", "users", "asked")
    row("  answered", "users", "answered")
    row("  refused with 429", "users", "refused_with_429", bad=True)
    row("  longest time to an answer, s", "users", "longest_answer_s")
    return table


def closing(took_s: float, program: str) -> str:
    """Say where the figures come from, and what to do next; `program` is this one."""
    return (
        f"Played in {took_s:.0f} s over real HTTP on this machine. Figures: what the two "
        "simulated\nproviders counted (/_stats); what was held back was counted by the "
        f"callers.\nTo rehearse with your own code: {program} simulate openai"
    )
