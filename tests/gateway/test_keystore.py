"""Client keys outlive the process, whatever ends it, and only their hashes are kept."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratekeeper.config.model import ClientKey, Watched
from ratekeeper.errors import ConfigError
from ratekeeper.gateway.keys import Hasher, KeyBook, new_secret
from ratekeeper.gateway.keystore import VARIABLE, KeyStore, pepper_path
from ratekeeper.stores.database import Database
from ratekeeper.testing.clock import EPOCH, ManualClock

HOUR_US = 3_600_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ratekeeper.db"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[KeyStore]:
    with contextlib.closing(Database(path)) as database:
        yield KeyStore(database)


def _create(store: KeyStore, name: str = "web", now_us: int = EPOCH) -> str:
    secret = new_secret()
    digest = store.hasher({}).digest(secret)
    store.create(ClientKey(name=name, hash=digest), now_us)
    return secret


def _name_of(path: Path, secret: str, now_us: int = EPOCH) -> str | None:
    """Ask as the gateway does, in a connection of its own."""
    with _opened(path) as store:
        found = KeyBook(store.hasher({}), store.records()).find(secret)
    return None if found is None or found.is_expired(now_us) else found.name


def test_a_key_is_known_to_the_next_process_with_all_it_may_do(path: Path) -> None:
    secret = new_secret()
    with _opened(path) as store:
        said = ClientKey(
            name="web",
            hash=store.hasher({}).digest(secret),
            team="search",
            allow_models=["gpt-4o*"],
            limits=["60 rpm", Watched(limit="$5/day", shadow=True)],
            priority="batch",
            max_wait="20s",
            expires="2028-12-31",
            shadow=True,
        )
        store.create(said, EPOCH)
    with _opened(path) as store:
        (kept,) = store.entries()

    assert said == kept.said
    assert (EPOCH, None) == (kept.created_us, kept.revoked_us)
    assert "web" == _name_of(path, secret)


def test_a_revoked_key_opens_nothing_and_stays_on_record(path: Path) -> None:
    with _opened(path) as store:
        secret = _create(store)
        store.revoke("web", EPOCH + 5)

        assert [] == store.records()
        assert [EPOCH + 5] == [key.revoked_us for key in store.entries()]
    assert _name_of(path, secret) is None


def test_a_rotated_key_lets_the_old_secret_in_until_its_grace_ends(path: Path) -> None:
    clock = ManualClock()
    with _opened(path) as store:
        old, new = _create(store), new_secret()
        digest = store.hasher({}).digest(new)
        store.rotate("web", digest, until_us=clock.now_us() + HOUR_US)
    clock.advance(us=HOUR_US - 1)

    assert ["web", "web"] == [_name_of(path, one, clock.now_us()) for one in (old, new)]
    clock.advance(us=1)
    assert [None, "web"] == [_name_of(path, one, clock.now_us()) for one in (old, new)]


def test_a_second_rotation_ends_the_secret_before_the_last(path: Path) -> None:
    with _opened(path) as store:
        made = [_create(store), new_secret(), new_secret()]
        for secret in made[1:]:
            digest = store.hasher({}).digest(secret)
            store.rotate("web", digest, until_us=EPOCH + HOUR_US)

    assert [None, "web", "web"] == [_name_of(path, secret) for secret in made]


def test_a_revoked_key_takes_its_old_secret_along(path: Path) -> None:
    with _opened(path) as store:
        old, new = _create(store), new_secret()
        store.rotate("web", store.hasher({}).digest(new), until_us=EPOCH + HOUR_US)
        store.revoke("web", EPOCH)

    assert [None, None] == [_name_of(path, one) for one in (old, new)]


def test_an_old_secret_does_not_outlive_its_key(path: Path) -> None:
    with _opened(path) as store:
        hasher = store.hasher({})
        said = ClientKey(
            name="web", hash=hasher.digest("old"), expires="2027-01-15T08:00:00.000001Z"
        )
        store.create(said, EPOCH)
        store.rotate("web", hasher.digest("new"), until_us=EPOCH + HOUR_US)
        ends = [record.expires_us for record in store.records()]

    assert [EPOCH + 1, EPOCH + 1] == ends


def test_a_name_is_given_once_even_after_it_was_revoked(path: Path) -> None:
    with _opened(path) as store:
        _create(store)
        with pytest.raises(
            ConfigError, match=r"'web' is there already.*keys rotate web"
        ):
            _create(store)
        store.revoke("web", EPOCH)
        with pytest.raises(ConfigError, match="'web' was revoked: give the new one"):
            _create(store)


def test_a_name_nobody_has_is_an_error_with_the_nearest(path: Path) -> None:
    with _opened(path) as store:
        _create(store, "search-web")
        with pytest.raises(ConfigError, match="did you mean 'search-web'"):
            store.revoke("serch-web", EPOCH)
        store.revoke("search-web", EPOCH)
        with pytest.raises(ConfigError, match="revoked, which is for good"):
            store.rotate("search-web", "d", until_us=EPOCH)


def test_a_running_gateway_hears_of_every_change_of_another_process(path: Path) -> None:
    with _opened(path) as gateway, _opened(path) as other:
        seen = [gateway.version()]
        _create(other)
        seen.append(gateway.version())
        other.rotate("web", "d", until_us=EPOCH)
        seen.append(gateway.version())
        other.revoke("web", EPOCH)
        seen.append(gateway.version())
        with pytest.raises(ConfigError):
            other.revoke("web", EPOCH)

        assert 4 == len({*seen})
        assert seen[-1] == gateway.version()


def test_only_their_owner_may_read_the_files(path: Path) -> None:
    before = os.umask(0)
    try:
        with _opened(path) as store:
            _create(store)
            modes = {
                one.name: stat.S_IMODE(one.stat().st_mode)
                for one in path.parent.iterdir()
            }
    finally:
        os.umask(before)

    assert {"ratekeeper.db", "ratekeeper.db.secret"} <= modes.keys()
    assert {0o600} == {*modes.values()}


def test_no_file_holds_a_secret_or_a_part_of_it(path: Path) -> None:
    with _opened(path) as store:
        secrets = [_create(store, f"key-{at}") for at in range(20)]
        digest = store.hasher({}).digest(secrets[0])
        held = b"".join(one.read_bytes() for one in path.parent.iterdir())
        shown = repr(store.entries())

    assert digest.encode() in held
    assert digest not in shown
    for secret in secrets:
        assert not any(secret[at : at + 8].encode() in held for at in range(3, 38))


def test_a_newer_file_is_refused_with_what_to_do(path: Path) -> None:
    with contextlib.closing(Database(path)) as database:
        KeyStore(database)
        with database.writing() as connection:
            connection.execute("UPDATE client_keys_state SET schema = 2")
        with pytest.raises(ConfigError, match=r"newer Ratekeeper.*update this one"):
            KeyStore(database)


# The pepper.


def test_the_variable_wins_over_the_file_and_makes_none(path: Path) -> None:
    given = "0123456789abcdef" * 2
    with _opened(path) as store:
        hasher = store.hasher({VARIABLE: given})

    assert Hasher(given.encode()).digest("x") == hasher.digest("x")
    assert not pepper_path(path).exists()


def test_what_the_file_holds_may_be_given_as_the_variable(path: Path) -> None:
    with _opened(path) as store:
        _create(store)
        digest = store.hasher({}).digest("x")
        held = pepper_path(path).read_text()

        assert digest == store.hasher({VARIABLE: held}).digest("x")


def test_a_short_secret_is_refused_and_not_shown(path: Path) -> None:
    with _opened(path) as store:
        with pytest.raises(ConfigError, match="has 9 characters") as caught:
            store.hasher({VARIABLE: "canary123"})
        pepper_path(path).write_text("canary123")
        with pytest.raises(ConfigError, match="is cut short") as read:
            store.hasher({})

    assert "canary" not in str(caught.value) + str(read.value)


def test_keys_whose_secret_is_lost_are_an_error_not_a_new_secret(path: Path) -> None:
    with _opened(path) as store:
        _create(store)
        pepper_path(path).unlink()
        with pytest.raises(ConfigError, match="is not there: put it back"):
            store.hasher({})

        assert not pepper_path(path).exists()
        with pytest.raises(ConfigError, match=f"another secret than {VARIABLE} holds"):
            store.hasher({VARIABLE: "f" * 32})


def test_keys_of_a_config_hold_on_to_their_secret_too(path: Path) -> None:
    with _opened(path) as store:
        store.hasher({}, has_written=True)
        pepper_path(path).unlink()
        with pytest.raises(ConfigError, match="is not there: put it back"):
            store.hasher({}, has_written=True)


def test_without_keys_another_secret_may_come(path: Path) -> None:
    with _opened(path) as store:
        first = _create(store)
        store.revoke("web", EPOCH)
        pepper_path(path).unlink()
        second = _create(store, "app")

    assert [None, "app"] == [_name_of(path, one) for one in (first, second)]


# What befalls a process.

_ONE_AFTER_ANOTHER = """
import sys
from pathlib import Path
from ratekeeper.config.model import ClientKey
from ratekeeper.gateway.keys import new_secret
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.stores.database import Database
store = KeyStore(Database(Path(sys.argv[1])))
hasher = store.hasher({})
for at in range(100_000):
    secret = new_secret()
    store.create(ClientKey(name=f"{sys.argv[2]}-{at}", hash=hasher.digest(secret)), at)
    print(secret, flush=True)
"""


def test_no_key_that_was_printed_is_lost_when_the_process_is_killed(path: Path) -> None:
    printed: list[str] = []
    for run, lines in enumerate([1, 7, 40]):
        with subprocess.Popen(
            [sys.executable, "-c", _ONE_AFTER_ANOTHER, str(path), str(run)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            printed += [process.stdout.readline().strip() for _ in range(lines)]
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split("\n")
        printed += rest[:-1]  # the last line may be cut off
    with _opened(path) as store:
        book = KeyBook(store.hasher({}), store.records())

    assert len(printed) >= 48
    assert all(book.find(secret) is not None for secret in printed)


def _create_many(path: Path, who: int) -> list[str]:
    with _opened(path) as store:
        return [_create(store, f"{who}-{at}") for at in range(25)]


def test_processes_that_create_at_once_share_one_pepper_and_lose_no_key(
    path: Path,
) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        made = pool.starmap(_create_many, [(path, who) for who in range(2)])
    with _opened(path) as store:
        book = KeyBook(store.hasher({}), store.records())
        names = {found.name for s in itertools.chain(*made) if (found := book.find(s))}

    assert {f"{who}-{at}" for who in range(2) for at in range(25)} == names


def test_of_two_processes_one_gets_the_name(path: Path) -> None:
    with _opened(path) as one, _opened(path) as other:
        secret = _create(one)
        with pytest.raises(ConfigError, match="is there already"):
            _create(other)

    assert "web" == _name_of(path, secret)


_UNTIL_FULL = """
import resource, signal, sys
from pathlib import Path
from ratekeeper.config.model import ClientKey
from ratekeeper.errors import StoreUnavailable
from ratekeeper.gateway.keys import new_secret
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.stores.database import Database
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
store = KeyStore(Database(Path(sys.argv[1])))
hasher = store.hasher({})
try:
    for at in range(10_000):
        secret = new_secret()
        store.create(ClientKey(name=f"k-{at}", hash=hasher.digest(secret)), at)
        print(secret, flush=True)
except StoreUnavailable as error:
    print(error, file=sys.stderr)
"""


def test_a_full_disk_is_a_clear_error_and_takes_no_key_along(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNTIL_FULL, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    printed = done.stdout.split()
    with _opened(path) as store:
        book = KeyBook(store.hasher({}), store.records())

    assert "check that the disk has room" in done.stderr
    assert printed
    assert all(book.find(secret) is not None for secret in printed)
