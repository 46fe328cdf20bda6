"""The lines of a TOML file, against a writer of TOML that knows where it wrote what."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.config.source import read_source
from ratekeeper.config.toml_lines import lines_of_toml

if TYPE_CHECKING:
    from pathlib import Path

    from ratekeeper.config.source import Lines, Place

NAMES = st.sampled_from(
    ["a", "b", "b.c", "a = [", "[x]", "#", "", "é", 'q"', "back\\slash", "'''", "\n"]
)
LEAVES = st.sampled_from(
    [
        *("1", "-1.5e3", "true", "1979-05-27 07:32:00", "inf", "0x1f"),
        *("'a = ['", "'''\n[x]\ny = 1''''", '"""\n]\\""" # """""', '""', '"#\\""'),
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=12,
)


class Writer:
    """Writes TOML in one of its styles, and notes the line of everything."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.text = ""
        self.lines: Lines = {}

    def _is(self) -> bool:
        return bool(self._data.draw(st.booleans()))

    def _stands(self, path: Place) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def table(self, path: Place, names: list[str], table: dict[str, Any]) -> None:
        """Write a table: what stands in it first, then those with heads of their own."""
        later = {}
        for name, value in table.items():
            tables = isinstance(value, list) and all(isinstance(x, dict) for x in value)
            if value and (tables or isinstance(value, dict)) and self._is():
                later[name] = value
                continue
            self._stands((*path, name))
            self.text += f"{_written(name)} = "
            self._value((*path, name), value, may_break=True)
            end = st.sampled_from(["\n", " # x = [\n", "\r\n"])
            self.text += self._data.draw(end)
        for name, value in later.items():
            inside = [*names, name]
            whole = ".".join(map(_written, inside))
            self._stands((*path, name))
            if isinstance(value, dict):
                self.text += f"[{whole}]\n"
                self.table((*path, name), inside, value)
                continue
            for at, one in enumerate(value):
                self._stands((*path, name, at))
                self.text += f"[[ {whole} ]]\n"
                self.table((*path, name, at), inside, one)

    def _value(self, path: Place, value: Any, *, may_break: bool) -> None:
        if isinstance(value, list):
            self.text += "["
            for at, one in enumerate(value):
                if may_break and self._is():
                    self.text += "# ]\n"
                self._stands((*path, at))
                self._value((*path, at), one, may_break=may_break)
                self.text += ","
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{"
            for at, (name, one) in enumerate(value.items()):
                self.text += ", " if at else ""
                self._stands((*path, name))
                self.text += f"{_written(name)}="
                self._value((*path, name), one, may_break=False)
            self.text += "}"
        else:
            self.text += value


def _written(name: str) -> str:
    return name if name in {"a", "b"} else json.dumps(name)


@given(st.dictionaries(NAMES, TREES, max_size=4), st.data())
def test_every_value_is_found_in_its_line(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    writer = Writer(data)
    writer.table((), [], tree)
    tomllib.loads(writer.text)

    assert writer.lines == lines_of_toml(writer.text)


def test_dotted_names_and_heads_stand_where_they_are_first_named() -> None:
    text = "[a.b]\nc.d = {e.f = 1}\n\n[a.g]\n[[h]]\n[h.i]\n[[h]]\n[[h.j]]\nk=1"

    assert {
        ("a",): 1,
        ("a", "b"): 1,
        ("a", "b", "c"): 2,
        ("a", "b", "c", "d"): 2,
        ("a", "b", "c", "d", "e"): 2,
        ("a", "b", "c", "d", "e", "f"): 2,
        ("a", "g"): 4,
        ("h",): 5,
        ("h", 0): 5,
        ("h", 0, "i"): 6,
        ("h", 1): 7,
        ("h", 1, "j"): 8,
        ("h", 1, "j", 0): 8,
        ("h", 1, "j", 0, "k"): 9,
    } == lines_of_toml(text)


@given(st.text(alphabet="a.=[]{},\n\"'# \\1", max_size=60))
def test_whatever_it_is_given_it_comes_to_an_end(text: str) -> None:
    try:
        lines = lines_of_toml(text)
    except tomllib.TOMLDecodeError:  # a name with an escape that is none
        lines = {}

    assert all(line >= 1 for line in lines.values())


def test_a_large_file_is_read_in_linear_time(tmp_path: Path) -> None:
    deep = ".".join("a" * 200)
    path = tmp_path / "large.toml"
    path.write_text("\n".join(f"b{n}.{deep} = 1" for n in range(2000)))
    _, lines = read_source(path)

    assert 2000 == lines["b1999",]
