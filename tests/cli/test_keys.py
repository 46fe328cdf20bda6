"""`ratekeeper keys`: a key is shown once, found at the door, and ended for good."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ratekeeper.cli.main import run
from ratekeeper.config.load import load
from ratekeeper.gateway.keys import KeyBook, KeyRecord
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.stores.claim import Claim
from ratekeeper.stores.database import Database
from tests.cli import running

CONFIG = """
listen: 0.0.0.0:9000
store: sqlite:///other.db
teams: {search: {}}
client_keys:
  - name: written
    hash: "0000000000000000000000000000000000000000000000000000000000000000"
    limits: [5 rpm, {limit: $1/day, shadow: true}]
"""


class Keys:
    """The command, run in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.code, self.out, self.err = 0, "", ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run it; returns what it printed."""
        self.code = run(["keys", *arguments])
        self.out, self.err = self._capsys.readouterr()
        assert code == self.code, self.err
        return self.out

    def facts(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def found(self, secret: str, store: str = "ratekeeper.db") -> KeyRecord | None:
        """Ask as the gateway does."""
        with contextlib.closing(Database(self.folder / store)) as database:
            kept = KeyStore(database)
            return KeyBook(kept.hasher(os.environ), kept.records()).find(secret)


@pytest.fixture
def keys(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Keys:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RATEKEEPER_SECRET", raising=False)
    (tmp_path / "gate.yaml").write_text(CONFIG)
    return Keys(tmp_path, capsys)


TERMS = (
    *("--team", "search", "--limit", "60 rpm", "--limit", "$5/day"),
    *("--allow-model", "gpt-4o*", "--priority", "batch", "--max-wait", "20s"),
    *("--expires", "2099-12-31", "--shadow"),
)


def test_a_new_key_is_all_that_goes_to_standard_output(keys: Keys) -> None:
    secret = keys("create", "web", *TERMS)
    record = keys.found(secret.strip())

    assert secret.startswith("rk-")
    assert 47 == len(secret)
    assert secret.strip() not in keys.err
    assert "It is shown this once" in keys.err
    assert "OPENAI_BASE_URL=http://127.0.0.1:8080/v1" in keys.err
    assert record is not None
    assert ("web", "search", ("60 rpm", "$5/day"), "batch", 20_000_000, True) == (
        record.name,
        record.team,
        record.limits,
        record.priority,
        record.max_wait_us,
        record.shadow,
    )


def test_json_tells_key_and_terms(keys: Keys) -> None:
    facts = keys.facts("create", "web", "--limit", "60 rpm")

    found = keys.found(facts.pop("key"))
    store = str(keys.folder / "ratekeeper.db")

    assert found is not None
    assert {"name": "web", "limits": ["60 rpm"], "store": store} == facts


def test_an_entry_for_the_config_lets_the_same_key_in_and_stores_nothing(
    keys: Keys,
) -> None:
    entry = keys("create", "web", *TERMS, "--print-yaml")
    secret = next(word for word in keys.err.split() if word.startswith("rk-"))
    path = keys.folder / "new.yaml"
    path.write_text(f"teams: {{search: {{}}}}\nclient_keys:\n{entry}")
    said = load(path).client_keys
    with contextlib.closing(Database(keys.folder / "ratekeeper.db")) as database:
        hasher = KeyStore(database).hasher(os.environ)

    assert secret not in entry
    assert keys.found(secret) is None
    assert "web" == getattr(KeyBook.joined(hasher, said, []).find(secret), "name", "")


def test_an_entry_for_a_config_in_toml_is_toml(keys: Keys) -> None:
    path = keys.folder / "gate.toml"
    path.write_text('[teams.search]\nlimits = "5 rpm"\n')
    terms = (*TERMS, "--allow-model", 'a"\\é\U0001f600')
    entry = keys("create", "web", *terms, "--print-yaml", "-c", str(path))
    path.write_text(path.read_text() + entry)
    (said,) = load(path).client_keys

    assert ("web", "search", "batch") == (said.name, said.team, said.priority)
    assert ["60 rpm", "$5/day"] == said.limits
    assert ["gpt-4o*", 'a"\\é\U0001f600'] == said.allow_models


def test_every_mistake_is_told_by_its_option(keys: Keys) -> None:
    wrong = ("--limit", "60 rpn", "--limit", "learned", "--max-wait", "20q")
    keys("create", "a/b", *wrong, "--expires", "2099-13-01", code=2)
    told = [
        line.partition(": ")[0]
        for line in keys.err.split("ratekeeper: ")[1].split("\n")
    ]

    assert ["NAME", "--max-wait", "--expires", "--limit", "--limit"] == told[:5]
    assert not (keys.folder / "ratekeeper.db").exists()


def test_a_team_that_is_not_in_the_config_is_a_mistake_with_the_nearest(
    keys: Keys,
) -> None:
    keys("create", "web", "--team", "serch", "-c", "gate.yaml", code=2)
    assert "--team: there is no team 'serch' (did you mean 'search'?)" in keys.err

    keys("create", "web", "--team", "serch")
    assert "nobody checked that there is a team 'serch'" in keys.err


def test_a_config_names_store_and_address(keys: Keys) -> None:
    secret = keys("create", "web", "--team", "search", "-c", "gate.yaml").strip()

    assert keys.found(secret, "other.db") is not None
    assert not (keys.folder / "ratekeeper.db").exists()
    assert "http://localhost:9000/anthropic" in keys.err


def test_a_store_is_beside_the_config_that_names_it(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = keys.folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    secret = keys("create", "web", "-c", "../gate.yaml").strip()

    assert keys.found(secret, "other.db") is not None
    assert [] == [*elsewhere.iterdir()]
    assert f"kept in {keys.folder / 'other.db'}, a new store: no limits" in keys.err


@pytest.mark.parametrize("name", ["ratekeeper.yaml", "ratekeeper.toml"])
def test_the_config_of_this_folder_is_found_as_a_gateway_finds_it(
    keys: Keys, name: str
) -> None:
    text = CONFIG if name.endswith("yaml") else 'store = "sqlite:///other.db"\n'
    (keys.folder / name).write_text(text)
    secret = keys("create", "web").strip()

    assert keys.found(secret, "other.db") is not None
    assert not (keys.folder / "ratekeeper.db").exists()


def test_of_two_configs_in_this_folder_neither_is_taken(keys: Keys) -> None:
    for name in ("ratekeeper.yaml", "ratekeeper.toml"):
        (keys.folder / name).touch()
    keys("create", "web", code=2)

    assert "ratekeeper.yaml and ratekeeper.toml are here: name the one" in keys.err


def test_a_key_goes_to_a_simulated_gateway_where_there_is_no_other(keys: Keys) -> None:
    simulated = "ratekeeper-simulated.db"
    keys("create", "first", "--store", f"sqlite:///{simulated}")
    secret = keys("create", "web").strip()
    keys("create", "real", "--store", "sqlite:///ratekeeper.db")
    real = keys("create", "other").strip()

    claim = Claim(keys.folder / simulated)
    running = keys("create", "third").strip()
    claim.release()

    assert keys.found(secret, simulated) is not None
    assert keys.found(real) is not None
    assert keys.found(running, simulated) is not None


def test_it_is_said_whether_a_gateway_hears_of_a_new_key(keys: Keys) -> None:
    keys("create", "web")
    alone = keys.err
    claim = Claim(keys.folder / "ratekeeper.db")
    keys("create", "app")
    claim.release()

    assert "no gateway runs on this store now" in alone
    assert "the gateway that runs on this store knows it within a second" in keys.err


@pytest.mark.parametrize("verb", ["create", "revoke", "rotate"])
def test_a_key_of_the_config_is_changed_there(keys: Keys, verb: str) -> None:
    keys(verb, "written", "-c", "gate.yaml", code=2)

    assert "'written' stands in the config file: change it there" in keys.err


@pytest.mark.parametrize("how", [(), ("--print-yaml",), ("--json",)])
def test_a_name_is_given_once(keys: Keys, how: tuple[str, ...]) -> None:
    keys("create", "web")
    keys("create", "web", *how, code=2)

    assert "" == keys.out
    assert "'web' is there already" in keys.err


def test_a_key_that_would_be_over_is_not_made(keys: Keys) -> None:
    keys("create", "web", "--expires", "2020-01-01", code=2)

    assert "--expires: '2020-01-01' has passed" in keys.err


def test_a_revoked_key_is_let_in_no_more(keys: Keys) -> None:
    secret = keys("create", "web").strip()
    keys("revoke", "web")

    assert keys.found(secret) is None
    assert "revoked" == keys.facts("list")[0]["state"]


def test_a_rotated_key_has_two_secrets_for_its_grace(keys: Keys) -> None:
    old = keys("create", "web").strip()
    new = keys("rotate", "web", "--grace", "2h").strip()
    ends = [getattr(keys.found(one), "expires_us", 0) for one in (old, new)]

    assert ends[0]
    assert ends[1] is None
    assert "the old one works until 20" in keys.err
    assert "old secret until 20" in keys("list")


def test_a_rotation_without_grace_ends_the_old_secret(keys: Keys) -> None:
    old = keys("create", "web").strip()
    new = keys.facts("rotate", "web", "--grace", "0")["key"]
    record = keys.found(old)

    assert keys.found(new) is not None
    assert record is None or record.is_expired(record.expires_us or 0)


def test_a_list_shows_every_key_and_neither_secret_nor_hash(keys: Keys) -> None:
    secret = keys("create", "web", *TERMS, "-c", "gate.yaml").strip()
    text = keys("list", "-c", "gate.yaml")
    facts = keys.facts("list", "-c", "gate.yaml")

    assert [("written", "config"), ("web", "store")] == [
        (one["name"], one["source"]) for one in facts
    ]
    assert "60 rpm, $5/day, batch, waits 20s, only gpt-4o*, all only watched" in text
    assert "5 rpm, $1/day (watched)" in text
    assert "000000" not in text + str(facts)
    assert secret not in text + str(facts)


def test_an_expired_key_is_said_to_be(keys: Keys) -> None:
    path = keys.folder / "old.yaml"
    path.write_text(
        'client_keys: [{name: old, hash: "%064d", expires: 2020-01-01}]' % 0  # noqa: UP031
    )
    keys("create", "web")

    assert ["expired", "active"] == [
        one["state"] for one in keys.facts("list", "-c", "old.yaml")
    ]


def test_a_list_says_what_was_spent_today_and_this_month(keys: Keys) -> None:
    keys("create", "web")
    with (
        contextlib.closing(Database(keys.folder / "ratekeeper.db")) as database,
        database.writing() as connection,
    ):
        connection.execute(
            "CREATE TABLE spend (day TEXT, key TEXT, currency TEXT, cost_nano INTEGER)"
        )
        connection.executemany(
            "INSERT INTO spend VALUES (date('now', ?), 'web', ?, ?)",
            [
                ("+0 day", "usd", 1_234_000_001),
                ("+0 day", "cny", 10_000),
                ("-40 days", "usd", 7_000_000_000),
            ],
        )
    (facts,) = keys.facts("list")

    assert {"usd": "1.234000001", "cny": "0.00001"} == facts["spent_today"]
    assert facts["spent_today"] == facts["spent_this_month"]
    assert "0.00001 cny + $1.23" in keys("list")


def test_a_store_that_is_not_there_is_not_made_by_looking(keys: Keys) -> None:
    for verb in (["list"], ["revoke", "web"], ["rotate", "web"]):
        keys(*verb, "--store", "sqlite:///absent.db", code=2)

        assert f"there is no store {keys.folder / 'absent.db'}" in keys.err
    assert not (keys.folder / "absent.db").exists()


def test_a_store_that_cannot_be_written_is_a_clear_error(keys: Keys) -> None:
    keys("create", "web", "--store", "sqlite:///absent/x.db", code=1)

    assert "its folder is not there: make it" in keys.err


def test_a_key_in_the_place_of_its_name_is_not_repeated(keys: Keys) -> None:
    secret = keys("create", "web").strip()
    keys("revoke", secret, code=2)

    assert secret[3:] not in keys.err
    assert "not the key itself" in keys.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--store", "sqlite:///x.db", "-c", "gate.yaml"),
        ("create", "web", "--json", "--print-yaml"),
        ("create", "web", "--priority", "bach"),
        ("lst",),
    ],
)
def test_what_does_not_go_together_is_bad_usage(
    keys: Keys, arguments: tuple[str, ...]
) -> None:
    keys(*arguments, code=2)

    assert "Usage: ratekeeper keys" in keys.err


def test_a_shell_holds_the_key_and_nothing_else(keys: Keys) -> None:
    store = f"sqlite:///{keys.folder}/ratekeeper.db"
    done = running.run("keys", "create", "web", "--store", store)

    assert 0 == done.returncode
    assert keys.found(done.stdout.strip()) is not None
