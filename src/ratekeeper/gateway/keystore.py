"""Client keys in the gateway's SQLite file, and the pepper that hashes them beside it.

Of a key it keeps the name, the keyed hash and what it may do; the secret never comes
here. Several processes may write at once: each change is one transaction, and `version`
tells the others. A revoked key stays as a row that opens nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from ratekeeper.config.findings import near
from ratekeeper.config.model import ClientKey
from ratekeeper.errors import ConfigError
from ratekeeper.gateway.keys import Hasher, KeyRecord, record_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from ratekeeper.stores.database import Database

VARIABLE = "RATEKEEPER_SECRET"  # the pepper, where it is not a file

_SCHEMA = 1
_TABLES = (
    """CREATE TABLE IF NOT EXISTS client_keys (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE, digest TEXT NOT NULL UNIQUE, terms TEXT NOT NULL,
        created_us INTEGER NOT NULL, revoked_us INTEGER,
        old_digest TEXT, old_until_us INTEGER)""",
    # One row; `seal` is the hash of a constant, so that another pepper is noticed.
    """CREATE TABLE IF NOT EXISTS client_keys_state (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        schema INTEGER NOT NULL, version INTEGER NOT NULL, seal TEXT NOT NULL)""",
)
_SEALED = "the pepper of the client keys"
_SHORTEST = 32  # characters of a pepper
_PEPPER_BYTES = 32
_OUTSIDE_TERMS = ("name", "hash")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """One key of the store, and what has become of it."""

    said: ClientKey = dataclasses.field(repr=False)
    created_us: int
    revoked_us: int | None = None
    old_digest: str | None = dataclasses.field(default=None, repr=False)
    old_until_us: int | None = None

    def records(self) -> Iterator[KeyRecord]:
        """Return who is let in: its secret, and the one before while it has its grace."""
        if self.revoked_us is not None:
            return
        record = dataclasses.replace(record_of(self.said), source="store")
        yield record
        if self.old_digest is not None and self.old_until_us is not None:
            until = self.old_until_us
            if record.expires_us is not None:
                until = min(until, record.expires_us)
            yield dataclasses.replace(record, digest=self.old_digest, expires_us=until)


class KeyStore:
    """The client keys of one file.

    Raises `ConfigError` where a newer Ratekeeper has written it, and `StoreUnavailable`
    from whatever reads or writes it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.writing() as connection:
            for table in _TABLES:
                connection.execute(table)
            connection.execute(
                "INSERT OR IGNORE INTO client_keys_state VALUES (1, ?, 0, '')",
                (_SCHEMA,),
            )
            (schema,) = _row(connection, "SELECT schema FROM client_keys_state")
            if schema > _SCHEMA:
                raise ConfigError(
                    f"{database.path} was written by a newer Ratekeeper (client keys of "
                    f"form {schema}, known here is {_SCHEMA}): update this one"
                )

    def hasher(
        self, environ: Mapping[str, str], *, has_written: bool = False
    ) -> Hasher:
        """Return what hashes the secrets of this file; at first, its pepper is made.

        `has_written` says that a config holds keys beside those of the file. Raises
        `ConfigError` where the pepper is not the one that keys were made with.
        """
        path = self._database.path
        with self._database.writing() as connection:  # so that one process makes it
            (kept,) = _row(connection, "SELECT seal FROM client_keys_state")
            (in_use,) = _row(
                connection,
                "SELECT count(*) FROM client_keys WHERE revoked_us IS NULL",
            )
            is_bound = bool(kept) and bool(in_use or has_written)
            hasher = Hasher(_pepper(path, environ, may_make=not is_bound))
            seal = hasher.digest(_SEALED)
            if kept != seal:
                if is_bound:
                    raise ConfigError(
                        "the client keys were made with another secret than "
                        f"{_place(path, environ)} holds: put the one before back"
                    )
                connection.execute("UPDATE client_keys_state SET seal = ?", (seal,))
        return hasher

    def version(self) -> int:
        """Return a number that every change of a key raises, in whatever process."""
        with self._database.reading() as connection:
            (version,) = _row(connection, "SELECT version FROM client_keys_state")
        return int(version)

    def entries(self) -> list[StoredKey]:
        """Return every key there ever was, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT name, digest, terms, created_us, revoked_us, old_digest, "
                "old_until_us FROM client_keys ORDER BY id"
            ).fetchall()
        return [_stored(row) for row in rows]

    def records(self) -> list[KeyRecord]:
        """Return who is let in."""
        return [record for key in self.entries() for record in key.records()]

    def revoked(self) -> dict[str, str]:
        """Return the names of those that are let in no more, by digest."""
        ended = (one.said for one in self.entries() if one.revoked_us is not None)
        return {said.hash: said.name for said in ended}

    def create(self, said: ClientKey, now_us: int) -> None:
        """Add a key; when this returns it outlives the process.

        Raises `ConfigError` where its name is taken, by a revoked key as well: reports
        know keys by their names.
        """
        terms = msgspec.json.encode(terms_of(said)).decode()
        with self._changing() as connection:
            _free(connection, said.name)
            connection.execute(
                "INSERT INTO client_keys (name, digest, terms, created_us) "
                "VALUES (?, ?, ?, ?)",
                (said.name, said.hash, terms, now_us),
            )

    def check_free(self, name: str) -> None:
        """Raise `ConfigError` where a name is taken."""
        with self._database.reading() as connection:
            _free(connection, name)

    def revoke(self, name: str, now_us: int) -> None:
        """Let a key in no more, its secret before the last included."""
        with self._changing() as connection:
            _in_use(connection, name)
            connection.execute(
                "UPDATE client_keys SET revoked_us = ?, old_digest = NULL, "
                "old_until_us = NULL WHERE name = ?",
                (now_us, name),
            )

    def rotate(self, name: str, digest: str, *, until_us: int) -> None:
        """Give a key a new secret; the old one is let in until then, others no more."""
        with self._changing() as connection:
            _in_use(connection, name)
            connection.execute(
                "UPDATE client_keys SET old_digest = digest, old_until_us = ?, "
                "digest = ? WHERE name = ?",
                (until_us, digest, name),
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._database.writing() as connection:
            yield connection
            connection.execute("UPDATE client_keys_state SET version = version + 1")


def terms_of(said: ClientKey) -> dict[str, Any]:
    """Return what a key may do, as a file would say it; what is unsaid is left out."""
    usual = msgspec.to_builtins(ClientKey(name="", hash=""))
    return {
        field: value
        for field, value in msgspec.to_builtins(said).items()
        if field not in _OUTSIDE_TERMS and value != usual[field]
    }


def pepper_path(path: Path) -> Path:
    """Return where the pepper of a file is."""
    return path.with_name(f"{path.name}.secret")


def _stored(row: tuple[Any, ...]) -> StoredKey:
    name, digest, terms, created_us, revoked_us, old_digest, old_until_us = row
    said = {**msgspec.json.decode(terms), "name": name, "hash": digest}
    return StoredKey(
        said=msgspec.convert(said, ClientKey),
        created_us=created_us,
        revoked_us=revoked_us,
        old_digest=old_digest,
        old_until_us=old_until_us,
    )


def _free(connection: sqlite3.Connection, name: str) -> None:
    """Raise `ConfigError` where a name is taken, by a key that was revoked as well."""
    found = connection.execute(
        "SELECT revoked_us FROM client_keys WHERE name = ?", (name,)
    ).fetchone()
    if found is None:
        return
    if found[0] is not None:
        raise ConfigError(
            f"a client key '{name}' was revoked: give the new one another name"
        )
    raise ConfigError(
        f"a client key '{name}' is there already: give the new one another name, or "
        f"this one a new secret (keys rotate {name})"
    )


def _in_use(connection: sqlite3.Connection, name: str) -> None:
    """Raise `ConfigError` where there is no such key, or it was revoked."""
    names = dict(connection.execute("SELECT name, revoked_us FROM client_keys"))
    if name not in names:
        known = [one for one, revoked_us in names.items() if revoked_us is None]
        raise ConfigError(
            f"there is no client key '{name}' in the store{near(name, known)}"
        )
    if names[name] is not None:
        raise ConfigError(
            f"the client key '{name}' was revoked, which is for good: a new one has "
            "another name (keys create)"
        )


def _pepper(path: Path, environ: Mapping[str, str], *, may_make: bool) -> bytes:
    """Return the pepper, made at first; call it where no other process does."""
    given = environ.get(VARIABLE, "").strip()
    if given:
        if len(given) < _SHORTEST:
            raise ConfigError(
                f"{VARIABLE} has {len(given)} characters: expected {_SHORTEST} or more, "
                "as `openssl rand -hex 32` makes them"
            )
        return given.encode("utf-8", "surrogateescape")
    beside = pepper_path(path)
    if not beside.exists():
        if not may_make:
            raise ConfigError(
                f"{beside}, which the client keys were hashed with, is not there: put "
                f"it back, or set {VARIABLE} to what it held"
            )
        _write(beside, secrets.token_urlsafe(_PEPPER_BYTES))
    found = beside.read_bytes().strip()
    if len(found) < _SHORTEST:
        raise ConfigError(f"{beside} is cut short: put back what it held")
    return found


def _write(path: Path, text: str) -> None:
    """Write a file for its owner alone; there is all of it, or none."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)  # of a process that ended here
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)


def _place(path: Path, environ: Mapping[str, str]) -> str:
    return VARIABLE if environ.get(VARIABLE, "").strip() else str(pepper_path(path))


def _row(connection: sqlite3.Connection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(query).fetchone()
    return row
