"""`ratekeeper demo`: plays the 2 a.m. story and prints both sides next to each other.

Everything is real but the provider: HTTP on this machine, the same calls twice, and
the figures are what the two simulated providers counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ratekeeper.cli.night import Side

_FRAME_S = 0.125
_LINE_S = 5.0


@click.command(short_help="Play the 2 a.m. story, without and with Ratekeeper.")
@click.option(
    "--seed",
    type=int,
    default=2,
    show_default=True,
    help="Another one gives other prompt lengths, and other moments of the users' calls.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the final figures as JSON."
)
def demo(seed: int, *, as_json: bool) -> None:
    """Play the 2 a.m. story, without and with Ratekeeper, in about a minute.

    A stray load test fires 800 calls in 30 seconds at an account that others use too.
    No key is needed, and nothing leaves this machine.
    """
    from rich.console import Console

    from ratekeeper.cli import night
    from ratekeeper.simulator.server import serving

    console = Console()
    if not console.is_terminal:
        console = Console(width=80)
    with (
        serving(night.provider(seed)) as bare_url,
        serving(night.provider(seed)) as kept_url,
    ):
        figures = asyncio.run(
            _play(console, (bare_url, kept_url), seed, as_json=as_json)
        )
    if as_json:
        click.echo(json.dumps(figures, indent=2))


async def _play(
    console: Console, urls: tuple[str, str], seed: int, *, as_json: bool
) -> dict[str, Any]:
    from ratekeeper.cli import night, screen

    sides = (
        night.Side("without Ratekeeper", urls[0], limited=False),
        night.Side("with Ratekeeper", urls[1], limited=True),
    )
    calls = night.plan(seed)
    if as_json:
        took = await night.play(sides, calls, lambda _: None, every_s=_LINE_S)
    elif console.is_terminal and not console.is_dumb_terminal:
        took = await _live(console, sides, calls)
    else:
        console.print(screen.opening(), highlight=False)
        console.print()
        took = await _told(sides, calls)
    figures = {
        "seed": seed,
        "seconds": round(took, 1),
        "without": sides[0].figures(),
        "with": sides[1].figures(),
    }
    if not as_json:
        console.print()
        console.print(screen.summary(figures))
        console.print(screen.closing(took, _program()), highlight=False)
    return figures


def _program() -> str:
    """Return what runs this command line again, as it was typed."""
    typed = sys.argv[0]
    is_found = os.sep not in typed or shutil.which("ratekeeper") == typed
    return "ratekeeper" if is_found else typed


async def _told(sides: tuple[Side, ...], calls: list[Any]) -> float:
    from ratekeeper.cli import night, screen

    last = ""

    def tell(now_s: float) -> None:
        nonlocal last
        text = screen.line(now_s, sides)
        if text != last:  # the end may fall into the second of the last line
            click.echo(text)
        last = text

    return await night.play(sides, calls, tell, every_s=_LINE_S)


async def _live(console: Console, sides: tuple[Side, ...], calls: list[Any]) -> float:
    from rich.live import Live

    from ratekeeper.cli import night, screen

    console.print(screen.opening(), highlight=False)
    drawn = screen.Screen(console, sides)
    with Live(drawn.frame(0.0), console=console, auto_refresh=False) as live:
        return await night.play(
            sides,
            calls,
            lambda now_s: live.update(drawn.frame(now_s), refresh=True),
            every_s=_FRAME_S,
        )
