"""Draw how the algorithms treat one and the same arrivals: a table and an SVG.

Everything shown is computed by the meters of `ratekeeper.core` on a clock of integers:
`make picture` prints the table and writes `docs/algorithms.svg`.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from ratekeeper.core.policy import rules_of
from ratekeeper.core.units import MINUTE, SECOND

# 30 calls in the middle of a minute, 90 at its end, 30 in the next one.
ARRIVALS = [20 * SECOND] * 30 + [50 * SECOND] * 90 + [75 * SECOND] * 30
ROWS = (
    ("token-bucket", "60 rpm using token-bucket"),
    ("token-bucket, burst 5", "60 rpm burst 5"),
    ("sliding-window", "60 rpm using sliding-window"),
    ("fixed-window", "60 rpm using fixed-window"),
    ("leaky-bucket", "60 rpm using leaky-bucket"),
    ("paced", "60 rpm using paced"),
)
START = 1_800_000_000 * SECOND  # a full minute, so that fixed windows begin at 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """When each call of the pattern went, in microseconds from the start."""

    name: str
    grants: list[int]

    @property
    def at_once(self) -> int:
        """The most calls that went at one instant."""
        return max(self.grants.count(at) for at in set(self.grants))

    @property
    def worst_minute(self) -> int:
        """The most calls that went in any window of 60 s."""
        return max(
            sum(1 for other in self.grants if at <= other < at + MINUTE)
            for at in self.grants
        )

    @property
    def done_s(self) -> int:
        """When the last call went, in whole seconds."""
        return -(-self.grants[-1] // SECOND)


def play(name: str, text: str) -> Outcome:
    """Serve the arrivals first come, first served under one limit."""
    (rule,) = rules_of([text])
    meter = rule.meter(START)
    grants = []
    now = START
    for arrival in ARRIVALS:
        now = max(now, START + arrival)
        now += meter.wait_us(1, now)
        meter.take(1, now)
        grants.append(now - START)
    return Outcome(name=name, grants=grants)


def table(outcomes: list[Outcome]) -> str:
    """Return the comparison as a Markdown table."""
    lines = [
        "| `60 rpm using …` | at once | most in any 60 s | last of 150 calls |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {x.name} | {x.at_once} | {x.worst_minute} | {x.done_s} s |"
        for x in outcomes
    ]
    return "\n".join(lines)


_LEFT, _WIDTH, _ROW, _TOP = 190, 760, 46, 64
_LAST_S = 200
_INK, _QUIET, _ACCENT = "#1f2933", "#9aa5b1", "#2563eb"


def _x(at_us: int) -> float:
    return _LEFT + at_us / SECOND * _WIDTH / _LAST_S


def _bars(moments: list[int], base: float, color: str) -> list[str]:
    """Draw each second as a bar as high as the calls that went in it."""
    seconds: dict[int, int] = {}
    for at in moments:
        seconds[at // SECOND] = seconds.get(at // SECOND, 0) + 1
    tallest = 34
    return [
        f'<rect x="{_x(s * SECOND):.1f}" y="{base - high:.1f}" '
        f'width="2.6" height="{high:.1f}" fill="{color}"/>'
        for s, count in sorted(seconds.items())
        for high in [max(2.0, tallest * (count / 90) ** 0.5)]
    ]


def picture(outcomes: list[Outcome]) -> str:
    """Return the comparison as an SVG: one row of bars per algorithm."""
    height = _TOP + _ROW * (len(outcomes) + 1) + 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {_LEFT + _WIDTH + 90} {height}" '
        'font-family="system-ui, sans-serif" font-size="14">',
        "<title>One arrival pattern under six algorithms, 60 requests a minute</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="16" y="30" font-size="17" fill="{_INK}">150 calls under 60 requests/'
        "minute: when each algorithm lets them go</text>",
    ]
    bottom = _TOP + _ROW * (len(outcomes) + 1)
    for second in range(0, _LAST_S + 1, 20):
        x = _x(second * SECOND)
        minute = second % 60 == 0
        out.append(
            f'<line x1="{x:.1f}" y1="{_TOP - 14}" x2="{x:.1f}" y2="{bottom}" '
            f'stroke="{_QUIET if minute else "#e4e7eb"}" stroke-width="1"/>'
            f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle" '
            f'fill="{_QUIET}" font-size="12">{second} s</text>'
        )
    rows = [("arrivals", ARRIVALS, _QUIET, "")]
    rows += [
        (x.name, x.grants, _ACCENT, f"most in 60 s: {x.worst_minute}") for x in outcomes
    ]
    for at, (name, moments, color, note) in enumerate(rows):
        base = _TOP + _ROW * (at + 1) - 8
        out.append(f'<text x="16" y="{base - 4}" fill="{_INK}">{name}</text>')
        out.append(
            f'<text x="{_LEFT + _WIDTH + 76}" y="{base - 4}" text-anchor="end" '
            f'fill="{_INK}" font-size="12">{note}</text>'
        )
        out += _bars(list(moments), base, color)
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    """Print the table and write the picture."""
    outcomes = [play(name, text) for name, text in ROWS]
    print(table(outcomes))
    path = Path(__file__).parent.parent / "docs" / "algorithms.svg"
    path.parent.mkdir(exist_ok=True)
    path.write_text(picture(outcomes), encoding="utf-8")
    print(f"\nwritten: {path.relative_to(path.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
