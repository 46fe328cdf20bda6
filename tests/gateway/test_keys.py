"""A client key is known by its keyed hash alone, with the same work for every secret."""

from __future__ import annotations

import string

import pytest

from ratekeeper.config.model import ClientKey, Watched
from ratekeeper.errors import ConfigError
from ratekeeper.gateway.keys import Hasher, KeyBook, KeyRecord, new_secret, record_of
from ratekeeper.testing.clock import EPOCH

HASHER = Hasher(b"pepper" * 6)
SECRET = "rk-" + "s" * 43


def _record(secret: str = SECRET, name: str = "web") -> KeyRecord:
    return KeyRecord(name=name, digest=HASHER.digest(secret))


def test_a_secret_is_long_url_safe_and_never_the_same() -> None:
    made = {new_secret() for _ in range(100)}

    assert 100 == len(made)
    for secret in made:
        assert secret.startswith("rk-")
        assert 46 == len(secret)
        assert not set(secret) - set(string.ascii_letters + string.digits + "-_")


def test_the_key_of_a_secret_is_found() -> None:
    record = _record()

    assert record is KeyBook(HASHER, [_record("other", "x"), record]).find(SECRET)


@pytest.mark.parametrize(
    "secret",
    ["", "rk-", SECRET[:-1], SECRET + "s", "0" * 64, HASHER.digest(SECRET), "\ud800"],
)
def test_what_is_not_a_key_is_nobody(secret: str) -> None:
    assert KeyBook(HASHER, [_record()]).find(secret) is None


def test_another_pepper_knows_nobody() -> None:
    assert KeyBook(Hasher(b"salt" * 8), [_record()]).find(SECRET) is None


def test_a_credential_without_end_is_nobody_whatever_its_head() -> None:
    head = "k" * 512
    book = KeyBook(HASHER, [_record(head)])

    assert book.find(head) is not None
    assert book.find(head + "k") is None
    assert HASHER.digest(head) == HASHER.digest(head + "k" * 10_000_000)


class _Counted(Hasher):
    """A hasher that says what it was asked to hash."""

    def __init__(self) -> None:
        super().__init__(b"pepper" * 6)
        self.lengths: list[int] = []

    def digest(self, secret: str) -> str:
        self.lengths.append(len(secret))
        return super().digest(secret)


def test_known_and_unknown_secrets_are_hashed_and_compared_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("ratekeeper.gateway.keys.hmac.compare_digest", compare)
    hasher = _Counted()
    book = KeyBook(hasher, [_record()])
    found = [book.find(one) is not None for one in (SECRET, "rk-" + "u" * 43)]

    assert [True, False] == found
    assert [46, 46] == hasher.lengths
    assert [(64, 64)] * 2 == compared


def test_a_record_shows_neither_hash_nor_secret() -> None:
    record = _record()

    assert record.digest not in repr(record)
    assert record.digest not in repr(KeyBook(HASHER, [record]))


def test_a_key_ends_at_the_moment_it_expires() -> None:
    record = KeyRecord(name="web", digest="d", expires_us=EPOCH)

    assert not record.is_expired(EPOCH - 1)
    assert record.is_expired(EPOCH)
    assert not _record().is_expired(EPOCH)


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        ((), "anything", True),
        (("gpt-4o*",), "gpt-4o", True),
        (("gpt-4o*",), "gpt-4o-mini", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-4o*", "claude-*"), "claude-sonnet-4-5", True),
        (("gpt-4o*",), "GPT-4O", False),
        (("gpt-4o*",), "", False),
    ],
)
def test_a_key_may_be_for_some_models_alone(
    patterns: tuple[str, ...], model: str, allowed: bool
) -> None:
    record = KeyRecord(name="web", digest="d", allow_models=patterns)

    assert allowed is record.allows(model)


def test_a_key_of_the_config_says_what_it_may_do() -> None:
    said = ClientKey(
        name="web",
        hash=HASHER.digest(SECRET).upper(),
        team="search",
        allow_models=["gpt-4o*"],
        limits=["60 rpm", Watched(limit="$5/day", shadow=True)],
        priority="batch",
        max_wait="20s",
        expires="2026-12-31T00:00:00Z",
        shadow=True,
    )

    assert KeyRecord(
        name="web",
        digest=HASHER.digest(SECRET),
        team="search",
        allow_models=("gpt-4o*",),
        limits=("60 rpm", Watched(limit="$5/day", shadow=True)),
        priority="batch",
        max_wait_us=20_000_000,
        expires_us=1_798_675_200_000_000,
        shadow=True,
        source="config",
    ) == record_of(said)


def test_keys_of_config_and_store_are_joined() -> None:
    said = ClientKey(name="written", hash=HASHER.digest("one"))
    book = KeyBook.joined(HASHER, [said], [_record("two", "stored")])
    names = [found and found.name for found in map(book.find, ["one", "two", "three"])]

    assert ["written", "stored", None] == names


def test_a_name_in_config_and_store_is_an_error() -> None:
    said = ClientKey(name="web", hash=HASHER.digest("one"))

    with pytest.raises(
        ConfigError, match="'web' stands in the config and in the store"
    ):
        KeyBook.joined(HASHER, [said], [_record()])


def test_two_names_with_one_hash_are_an_error_that_does_not_show_it() -> None:
    with pytest.raises(ConfigError, match="'web' and 'app' have one hash") as caught:
        KeyBook(HASHER, [_record(), _record(name="app")])

    assert HASHER.digest(SECRET) not in str(caught.value)
