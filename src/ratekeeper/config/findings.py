"""Mistakes of a file as they are found: all of them, each with its line and name.

Whether data has the shape of a struct is checked here, field by field, as msgspec alone
stops at the first mistake; what is expected is said in the words of a file, not in
those of types (`config/forms.py`). What looks like a key is never repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import re
import types
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from ratekeeper.config.forms import form, shown
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ratekeeper.config.source import Lines, Place

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

_LONGEST_WORD = 40  # characters of a wrong one that are shown

# The beginnings of keys: what follows one is not to be seen by whoever reads a terminal.
_KEY = re.compile(
    r"\b(?:(?:sk|rk|hs|gsk|pk|xai|fw|tgp)[-_]|AIza|ya29\.)[A-Za-z0-9_\-.]{8,}", re.ASCII
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong: in which line (0: unknown), under which name, and why."""

    line: int
    name: str
    text: str

    def __str__(self) -> str:
        """Say it as what comes after a file's name and a colon."""
        where = f"{self.line}: " if self.line else " "
        return f"{where}{self.name}: {self.text}" if self.name else where + self.text


class Findings:
    """Collects the mistakes of one file."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._found: list[Mistake] = []

    def mistakes(self) -> list[Mistake]:
        """Return what was found, in the order of the file."""
        return sorted(self._found, key=lambda one: one.line)

    def add(self, place: Place, text: str) -> None:
        """Note a mistake at a place, or as near to it as the lines are known."""
        name = ""
        for step in place:
            name += (
                f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
            )
        while place and place not in self._lines:
            place = place[:-1]
        line = self._lines.get(place, 0) if place else 0
        self._found.append(Mistake(line=line, name=_unkeyed(name), text=_unkeyed(text)))

    def told(self, place: Place, read: Callable[[], T]) -> T | None:
        """Return what `read` does; its `ConfigError` is a mistake, and gives None."""
        try:
            return read()
        except ConfigError as error:
            self.add(place, str(error).partition("\n")[0])
            return None

    def shape(self, data: Any, kind: Any, place: Place = ()) -> None:
        """Check names and types, down to the last value."""
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            self._struct(data, kind, place)
            return
        origin, inner = get_origin(kind), get_args(kind)
        if origin is list and isinstance(data, list):
            for at, one in enumerate(data):
                self.shape(one, inner[0], (*place, at))
        elif origin is dict and isinstance(data, dict):
            for name, one in data.items():
                self.shape(one, inner[1], (*place, name))
        elif origin in {Union, types.UnionType} and (arm := _arm(data, inner)):
            self.shape(data, arm, place)
        elif origin is Literal and isinstance(data, str):
            if data not in inner:
                text = f"{data[:_LONGEST_WORD]!r}: expected {form(place, kind)}"
                self.add(place, text + near(data, inner))
        else:
            self._leaf(data, kind, place)

    def _struct(self, data: Any, kind: type[msgspec.Struct], place: Place) -> None:
        if not isinstance(data, dict):
            self._leaf(data, kind, place)
            return
        known = {field.name: field for field in msgspec.structs.fields(kind)}
        for name, value in data.items():
            if name in known:
                self.shape(value, known[name].type, (*place, name))
                continue
            hint = near(name, known).strip(" ()") or f"expected {', '.join(known)}"
            self.add((*place, name), f"not a known name ({hint})")
        for name, field in known.items():
            if field.required and name not in data:
                self.add(place, f"expected '{name}' here")

    def _leaf(self, data: Any, kind: Any, place: Place) -> None:
        if not fits(data, kind):
            self.add(place, f"expected {form(place, kind)}, not {shown(data)}")


def fits(data: Any, kind: Any) -> bool:
    """Say whether data has the shape of a kind."""
    try:
        msgspec.convert(data, kind)
    except msgspec.ValidationError:
        return False
    return True


def fitting(data: dict[str, Any], kind: type[S], **unsaid: Any) -> S:
    """Return a struct of those members that fit: one that does not hides no other.

    What lacks, or has another shape, is as `unsaid` has it, else the default.
    """
    for field in msgspec.structs.fields(kind):
        if field.name in data:
            with contextlib.suppress(msgspec.ValidationError):
                unsaid[field.name] = msgspec.convert(data[field.name], field.type)
    return kind(**unsaid)


def near(word: str, known: Iterable[str]) -> str:
    """Return the hint at the known word that one may be a slip for, "" if none is."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{found[0]}'?)" if found else ""


def _arm(data: Any, kinds: tuple[Any, ...]) -> Any:
    """Return the one of several kinds that data of this form must be meant for."""
    for kind in kinds:
        is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        if isinstance(data, dict) and is_struct:
            return kind
        if isinstance(data, list) and get_origin(kind) is list:
            return kind
        if isinstance(data, str) and get_origin(kind) is Literal:
            return kind
    return None


def _unkeyed(text: str) -> str:
    return _KEY.sub("[key]", text)
