"""Read a file, TOML or YAML, as plain data, with the line of each value.

The file is data from outside: its size and depth are bounded, YAML's anchors are
refused, and a key named twice is a mistake, not a choice. What the data means is
not known here. Dates stay the text they are.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from typing import TYPE_CHECKING, Any, NoReturn

from ratekeeper.config.toml_lines import lines_of_toml
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 1 << 20  # bytes; a config of ten thousand accounts is smaller
_DEEPEST = 32  # levels; what a config says ends at the fifth
_LONGEST = 4096  # characters of a value in YAML, whose numbers to base 60 are slow
_MOST_DOTS = 200  # in a line of TOML, whose dotted names are slow
_TOML_AT = re.compile(r"\(at line (\d+)")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"

Place = tuple[str | int, ...]  # the names and numbers that lead to a value
Lines = dict[Place, int]  # where each value of the file stands


def read_source(path: Path) -> tuple[Any, Lines]:
    """Return what a file says, and where; `ConfigError` where it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise ConfigError(message) from error
    if len(raw) > _LARGEST:
        message = f"{path.name} has {len(raw)} bytes: expected at most {_LARGEST}"
        raise ConfigError(message)
    text = ""
    try:
        text = raw.decode("utf-8-sig")
        if path.suffix == ".toml":
            _refuse_dots(path.name, text)
            return _plain(tomllib.loads(text)), lines_of_toml(text)
        return _read_yaml(path.name, text)
    except UnicodeDecodeError:  # it holds the whole file
        message = f"{path.name} is not UTF-8 text"
        raise ConfigError(message) from None
    except tomllib.TOMLDecodeError as error:
        at = _TOML_AT.search(str(error))  # else it is the end of the document
        line = at[1] if at else text.count("\n") + 1
        message = f"{path.name}:{line}: {error}"
        raise ConfigError(message) from None
    except ConfigError:
        raise
    except ValueError:
        message = f"{path.name} holds a number that is too long"
        raise ConfigError(message) from None
    except RecursionError as error:
        message = f"{path.name} is nested too deeply"
        raise ConfigError(message) from error


def _refuse_dots(name: str, text: str) -> None:
    """Refuse names of names without end, which tomllib reads in quadratic time."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _MOST_DOTS and not line.lstrip().startswith("#"):
            message = f"{name}:{number}: nested too deeply"
            raise ConfigError(message)


def _plain(value: Any) -> Any:
    """Turn the dates of TOML, at any depth, into text."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    is_date = isinstance(value, datetime.date | datetime.time)
    return value.isoformat() if is_date else value


def _read_yaml(name: str, text: str) -> tuple[Any, Lines]:
    try:
        import yaml
    except ImportError as error:
        message = (
            f"{name}: reading YAML needs one more package: pip install pyyaml "
            "(or write TOML)"
        )
        raise ConfigError(message) from error
    lines: Lines = {}
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                _wrong(
                    name, event.start_mark, "anchors are not read here: write it out"
                )
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST:
                _wrong(name, event.start_mark, "a value that is too long")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                _wrong(name, event.start_mark, "nested too deeply")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, lines
        return _value_of(name, loader, node, (), lines), lines
    except ConfigError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        _wrong(name, mark, getattr(error, "problem", None) or "is not YAML")
    except (ValueError, OverflowError):  # dates and numbers YAML cannot hold
        _wrong(name, None, "holds a value YAML cannot read")


def _wrong(name: str, mark: Any, text: str) -> NoReturn:
    """Raise without a cause: YAML's own errors show the line, and a key may be in it."""
    line = f":{mark.line + 1}" if mark is not None else ""
    message = f"{name}{line}: {text}"
    raise ConfigError(message) from None


def _value_of(name: str, loader: Any, node: Any, path: Place, lines: Lines) -> Any:
    """Turn a YAML node into plain data, and remember where it stands."""
    import yaml

    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [
            _value_of(name, loader, one, (*path, at), lines)
            for at, one in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        is_date = node.tag == _TIMESTAMP
        return node.value if is_date else loader.construct_object(node)
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str):
            _wrong(name, key_node.start_mark, f"{key!r}: expected a name")
        if key in found:
            _wrong(name, key_node.start_mark, f"'{key}' is there twice")
        found[key] = _value_of(name, loader, value_node, (*path, key), lines)
        lines[*path, key] = key_node.start_mark.line + 1
    return found
