"""Where the values of a TOML file stand: what tomllib knows and does not tell.

It is given what tomllib has read without a complaint and walks it once, looking at no
value more closely than it takes to find where that ends. It says nothing of mistakes.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ratekeeper.config.source import Lines, Place

_DEEPEST = 32  # levels that are told apart; what a config says ends at the fifth
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # strings: of many lines, then of one
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|\n"
    r"|[\[\]{},=.]"
    r"|[^\s\[\]{},=.\"'\#]+",
    re.DOTALL,
)
_ENDS = frozenset([",", "]", "}", "\n", ""])


def lines_of_toml(text: str) -> Lines:
    """Return the line of each value of a TOML file that is well formed."""
    return _Walk(text).whole()


class _Walk:
    """The way through a file, token by token; each method leaves what it has read."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._token, self._line = "", 0
        self._lines: Lines = {}
        self._counts: dict[Place, int] = {}  # the last element of each array of tables
        self._next()

    def whole(self) -> Lines:
        """Walk statement by statement: heads of tables, and names with their values."""
        table: Place = ()
        while self._token:
            if self._token == "\n":
                self._next()
            elif self._token == "[":
                table = self._head()
            else:
                self._pair(table)
        return self._lines

    def _next(self) -> str:
        """Go on to the next token, "" at the end; return the one that is left."""
        left = self._token
        self._token, self._line = next(self._tokens, ("", self._line))
        return left

    def _head(self) -> Place:
        """Read `[a.b]` or `[[a.b]]`; return the table that begins."""
        line = self._line
        self._next()
        is_element = self._token == "["
        if is_element:
            self._next()
        path: Place = ()
        for name in self._names():
            if path in self._counts:  # the latest of several
                path = (*path, self._counts[path])
            path = (*path, name)
            self._stands(path, line)
        if is_element:
            self._next()
            self._counts[path] = self._counts.get(path, -1) + 1
        self._next()
        if path in self._counts:
            path = (*path, self._counts[path])
            self._stands(path, line)
        return path

    def _pair(self, table: Place) -> None:
        """Read `a.b = value`."""
        line = self._line
        for name in self._names():
            table = (*table, name)
            self._stands(table, line)
        self._next()  # =
        self._value(table)

    def _names(self) -> list[str]:
        """Read a dotted name; its deepest parts are left out."""
        names = [_name(self._next())]
        while self._token == ".":
            self._next()
            names.append(_name(self._next()))
        return names[:_DEEPEST]

    def _value(self, path: Place) -> None:
        if self._token == "[":
            self._array(path)
        elif self._token == "{":
            self._next()
            while self._has_more():
                self._pair(path)
            self._next()
        else:
            while self._token not in _ENDS:
                self._next()

    def _array(self, path: Place) -> None:
        self._next()
        at = 0
        while self._has_more():
            self._stands((*path, at), self._line)
            self._value((*path, at))
            at += 1
        self._next()

    def _has_more(self) -> bool:
        """Go on to the next of several; False at their end."""
        while self._token in {",", "\n"}:
            self._next()
        return self._token not in _ENDS

    def _stands(self, path: Place, line: int) -> None:
        if len(path) <= _DEEPEST:
            self._lines.setdefault(path, line)


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """Split a file into tokens, each with its line; comments are none."""
    line = 1
    for match in _TOKEN.finditer(text):
        token = match[0]
        if not token.startswith("#"):
            yield token, line
        line += token.count("\n")


def _name(token: str) -> str:
    """Return a name without its quotation marks."""
    if token[:1] not in "\"'":
        return token
    return str(tomllib.loads(f"x = {token}")["x"]) if "\\" in token else token[1:-1]
