"""Client keys: what each may do, and how a secret is recognised at the door.

A secret is known by its keyed hash alone and is never kept; unknown, wrong and revoked
ones cost the same work. Where keys are stored is the business of `keystore.py`.
"""

from __future__ import annotations

import base64
import dataclasses
import fnmatch
import hmac
import secrets
from typing import TYPE_CHECKING, Literal

from ratekeeper.config import times
from ratekeeper.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ratekeeper.config import model

_PREFIX = "rk-"
_SECRET_BYTES = 32  # 43 characters of base64
_LONGEST = 512  # characters of a credential that are looked at
_NO_DIGEST = "0" * 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One client key: whose it is and what it may do.

    An old secret that a rotation still lets in is a record of its own, of the same
    name, that expires with its grace.
    """

    name: str
    digest: str = dataclasses.field(repr=False)
    team: str = ""
    allow_models: tuple[str, ...] = ()
    limits: tuple[str | model.Watched, ...] = ()
    priority: model.Priority | None = None
    max_wait_us: int | None = None
    expires_us: int | None = None
    shadow: bool = False
    source: Literal["config", "store"] = "store"

    def is_expired(self, now_us: int) -> bool:
        """Say whether its time has passed."""
        return self.expires_us is not None and now_us >= self.expires_us

    def allows(self, name: str) -> bool:
        """Say whether a model may be called: all may where none is named."""
        return not self.allow_models or any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.allow_models
        )


class Hasher:
    """Turns a secret into what is kept of it: HMAC-SHA256, keyed with the pepper."""

    def __init__(self, pepper: bytes) -> None:
        self._peppered = hmac.new(pepper, digestmod="sha256")

    def digest(self, secret: str) -> str:
        """Return the keyed hash of a secret; of a longer one than any, of its head."""
        data = secret[:_LONGEST].encode("utf-8", "surrogatepass")
        # To mix the pepper in anew would take twice as long.
        peppered = self._peppered.copy()
        peppered.update(data)
        return peppered.hexdigest()

    def secret_of(self, name: str) -> str:
        """Return a secret made of the pepper: the same every time, and nobody else's."""
        made = self._peppered.copy()
        made.update(f"the secret of {name}".encode())
        return _PREFIX + base64.urlsafe_b64encode(made.digest()).rstrip(b"=").decode()


class KeyBook:
    """The client keys in force, by the keyed hash of their secrets."""

    def __init__(self, hasher: Hasher, records: Iterable[KeyRecord]) -> None:
        self._hasher = hasher
        self._records: dict[str, KeyRecord] = {}
        for record in records:
            other = self._records.setdefault(record.digest, record)
            if other is not record:
                raise ConfigError(
                    f"the client keys '{other.name}' and '{record.name}' have one hash: "
                    "every key has a secret of its own"
                )
        self._nobody = KeyRecord(name="", digest=_NO_DIGEST)

    @classmethod
    def joined(
        cls,
        hasher: Hasher,
        said: Iterable[model.ClientKey],
        stored: Iterable[KeyRecord],
    ) -> KeyBook:
        """Join the keys of a config with those of a store.

        Raises `ConfigError` where both know a name: which one is meant?
        """
        stored = list(stored)
        records = [record_of(one) for one in said]
        if both := sorted({one.name for one in records} & {one.name for one in stored}):
            raise ConfigError(
                f"client key '{both[0]}' stands in the config and in the store: take it "
                "out of the config, or revoke it and give the other a new name"
            )
        return cls(hasher, [*records, *stored])

    def __iter__(self) -> Iterator[KeyRecord]:
        return iter(self._records.values())

    def find(self, secret: str) -> KeyRecord | None:
        """Return the key of a secret, None where nobody has it."""
        digest = self._hasher.digest(secret)
        # The dict compares hashes that nobody outside can steer; the comparison that
        # decides takes the same time for every secret.
        record = self._records.get(digest, self._nobody)
        is_same = hmac.compare_digest(record.digest, digest)
        return record if is_same and len(secret) <= _LONGEST else None


def new_secret() -> str:
    """Make a secret that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def record_of(said: model.ClientKey) -> KeyRecord:
    """Return the record of a key as a config says it."""
    return KeyRecord(
        name=said.name,
        digest=said.hash.lower(),
        team=said.team,
        allow_models=tuple(said.allow_models),
        limits=tuple(said.limits),
        priority=said.priority,
        max_wait_us=times.duration_us(said.max_wait) if said.max_wait else None,
        expires_us=times.instant_us(said.expires) if said.expires else None,
        shadow=said.shadow,
        source="config",
    )
