"""Read a config file, TOML or YAML: every mistake at once, each with its line.

The file is data from outside: its size and depth are bounded, YAML's anchors are
refused, and a key named twice is a mistake, not a choice.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ratekeeper.config.model import Account, Config, Price, Provider
from ratekeeper.core.limits import parse_limits
from ratekeeper.core.policy import means_learned
from ratekeeper.errors import ConfigError
from ratekeeper.providers.catalog import find_provider
from ratekeeper.providers.presets import preset
from ratekeeper.providers.pricing import PriceBook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_LARGEST = 1 << 20  # bytes; a config of ten thousand accounts is smaller
_DEEPEST = 32  # levels; what a config says ends at the fifth
_LONGEST = 4096  # characters of a value in YAML, whose numbers to base 60 are slow
_MOST_DOTS = 200  # in a line of TOML, whose dotted names are slow
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_AT = re.compile(r" - at `\$\.?([^`]*)`")
_TOML_AT = re.compile(r"\(at line (\d+)")

Lines = dict[tuple[str | int, ...], int]  # where each value of the file stands


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


def load(path: Path) -> Config:
    """Read a file; raises `ConfigError` that lists every mistake in it."""
    config, mistakes = read(path)
    if config is None:
        raise ConfigError("\n".join(f"{path.name}:{mistake}" for mistake in mistakes))
    return config


def read(path: Path) -> tuple[Config | None, list[Mistake]]:
    """Read a file: the config, or every mistake in it.

    Raises `ConfigError` where it cannot be read as TOML or YAML at all.
    """
    data, lines = _read(path)
    mistakes = list(_mistakes(data, lines))
    return None if mistakes else msgspec.convert(data, Config), mistakes


def limits_of(name: str, account: Account) -> tuple[str, ...]:
    """Return the limits of an account: those it says, or those of its tier."""
    if account.tier == "":
        said = account.limits
        if isinstance(said, str):
            return (said,)
        return tuple(one if isinstance(one, str) else one.limit for one in said)
    found = preset(name, tier=str(account.tier), model=account.model or None)
    return found.limits


def _read(path: Path) -> tuple[Any, Lines]:
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
            return tomllib.loads(text), _lines_of_toml(text)
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


def _lines_of_toml(text: str) -> Lines:
    """Say where the tables begin: as near as tomllib lets anyone come."""
    lines: Lines = {}
    counts: dict[tuple[str | int, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[(\[?)\s*([^\]]+?)\s*\]", line)
        if head:
            path = tuple(part.strip(" \"'") for part in head[2].split("."))
            if head[1]:
                counts[path] = counts.get(path, -1) + 1
                path = (*path, counts[path])
            lines.setdefault(path, number)
    return lines


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


def _value_of(
    name: str, loader: Any, node: Any, path: tuple[str | int, ...], lines: Lines
) -> Any:
    """Turn a YAML node into plain data, and remember where it stands."""
    import yaml

    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        return [
            _value_of(name, loader, one, (*path, at), lines)
            for at, one in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node)
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


def _mistakes(data: Any, lines: Lines) -> Iterator[Mistake]:
    """Find everything that is wrong, from the outside in."""
    tables = ("providers", "prices", "rates")
    if not isinstance(data, dict) or not all(
        isinstance(data.get(name, {}), dict) for name in tables
    ):
        yield from _shape(data, Config, (), lines)
        return
    rest = {k: v for k, v in data.items() if k not in tables}
    yield from _shape(rest, Config, (), lines)
    yield from _money(data.get("prices", {}), data.get("rates", {}), lines)
    for name, provider in data.get("providers", {}).items():
        path: tuple[str | int, ...] = ("providers", name)
        try:
            find_provider(_text(provider, "base_url") or name)
        except ConfigError as error:
            yield _mistake(path, lines, str(error))
        accounts = provider.get("accounts", []) if isinstance(provider, dict) else None
        if not isinstance(accounts, list):
            yield from _shape(provider, Provider, path, lines)
            continue
        rest = {k: v for k, v in provider.items() if k != "accounts"}
        yield from _shape(rest, Provider, path, lines)
        for at, account in enumerate(accounts):
            here = (*path, "accounts", at)
            wrong = list(_shape(account, Account, here, lines))
            yield from wrong or _account(name, account, here, lines)


def _money(
    prices: dict[str, Any], rates: dict[str, Any], lines: Lines
) -> Iterator[Mistake]:
    """Find what is wrong in prices and in the rates of currencies."""
    for model, price in prices.items():
        path = ("prices", model)
        wrong = list(_shape(price, Price, path, lines))
        yield from wrong or _told(path, lines, lambda: PriceBook({model: price}))  # noqa: B023 - called at once
    for name, rate in rates.items():
        path = ("rates", name)
        yield from _told(path, lines, lambda: PriceBook(rates={name: rate}))  # noqa: B023 - called at once


def _told(
    path: tuple[str | int, ...], lines: Lines, check: Callable[[], object]
) -> Iterator[Mistake]:
    try:
        check()
    except ConfigError as error:
        yield _mistake(path, lines, str(error))


def _account(
    name: str, data: dict[str, Any], path: tuple[str | int, ...], lines: Lines
) -> Iterator[Mistake]:
    """Find what is wrong in an account whose shape is right."""
    account = msgspec.convert(data, Account)
    if account.api_key and not account.api_key.startswith("env:"):
        text = "expected env:NAME, the variable that holds the key, not a key"
        yield _mistake((*path, "api_key"), lines, text)
    if bool(account.limits) == (account.tier != ""):
        text = "expected limits or a tier" + (", not both" if account.limits else "")
        yield _mistake(path, lines, text)
        return
    under = (*path, "limits" if account.limits else "tier")
    said = (account.limits,) if isinstance(account.limits, str) else account.limits
    for at, limit in enumerate(said):
        if isinstance(limit, str) and means_learned(limit):
            continue
        try:
            parse_limits([limit if isinstance(limit, str) else limit.limit])
        except ConfigError as error:
            yield _mistake((*under, at), lines, str(error).partition("\n")[0])
            return
    if any(isinstance(one, str) and means_learned(one) for one in said):
        return
    try:
        parse_limits(limits_of(name, account))
    except ConfigError as error:
        yield _mistake(under, lines, str(error).partition("\n")[0])


def _shape(
    data: Any, kind: type[msgspec.Struct], path: tuple[str | int, ...], lines: Lines
) -> Iterator[Mistake]:
    """Check names and types; msgspec stops at the first mistake of one struct."""
    try:
        msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        unknown = _UNKNOWN.search(text)
        if unknown:
            known = kind.__struct_fields__
            near = difflib.get_close_matches(unknown[1], known, n=1)
            hint = (
                f"did you mean '{near[0]}'?" if near else f"expected {', '.join(known)}"
            )
            yield _mistake((*path, unknown[1]), lines, f"not a known name ({hint})")
            return
        at = _AT.search(text)
        inner = re.findall(r"\w+", at[1]) if at else []
        steps = [int(step) if step.isdigit() else step for step in inner]
        yield _mistake((*path, *steps), lines, _AT.sub("", text).replace("`", ""))


def _text(data: Any, name: str) -> str:
    value = data.get(name, "") if isinstance(data, dict) else ""
    return value if isinstance(value, str) else ""


def _mistake(path: tuple[str | int, ...], lines: Lines, text: str) -> Mistake:
    name = ""
    for step in path:
        name += f"[{step}]" if isinstance(step, int) else f".{step}" if name else step
    while path and path not in lines:
        path = path[:-1]
    return Mistake(line=lines.get(path, 0) if path else 0, name=name, text=text)
