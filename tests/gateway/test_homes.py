"""What one account made goes there, and what one team made is not another's."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ratekeeper.core.units import DAY, HOUR
from ratekeeper.errors import StoreUnavailable
from ratekeeper.gateway.homes import Apart, Foreign, Home, Homes, home_of
from ratekeeper.gateway.stays import Stays, beginning_of
from ratekeeper.stores.database import Database
from tests.gateway import gates
from tests.gateway.gates import Gate, account, client_key, gate
from tests.gateway.shelf import Shelf, shelf

OTHER = "rk-" + "o" * 43
MATE = "rk-" + "m" * 43


@pytest.fixture
def one() -> Iterator[Shelf]:
    with shelf("one") as it:
        yield it


@pytest.fixture
def two() -> Iterator[Shelf]:
    with shelf("two") as it:
        yield it


@contextlib.contextmanager
def _gate(folder: Path, *shelves: Shelf, limit: str = "100k rpm") -> Iterator[Gate]:
    accounts = [account(it.url, limit, name=it.name) for it in shelves]
    keys = [
        client_key(team="a"),
        client_key("mate", MATE, team="a"),
        client_key("other", OTHER),
    ]
    config = gates.config(
        folder, {"openai": {"accounts": accounts}}, keys, teams={"a": {}}, max_wait="0s"
    )
    with gate(config) as it:
        yield it


def _upload(client: httpx2.Client) -> str:
    form = {"file": ("a.jsonl", b"{}")}
    reply = client.post("/v1/files", files=form, data={"purpose": "batch"})
    return str(reply.json()["id"])


def _respond(client: httpx2.Client, **said: Any) -> httpx2.Response:
    body = {"model": "gpt-4o", "input": "hi", "max_output_tokens": 5, **said}
    return client.post("/v1/responses", json=body)


def test_what_was_made_is_found_where_it_was_made(
    tmp_path: Path, one: Shelf, two: Shelf
) -> None:
    with _gate(tmp_path, one, two) as it, it.client() as client:
        made = [_upload(client) for _ in range(6)]
        read = [client.get(f"/v1/files/{name}").status_code for name in made * 2]

    assert one.things
    assert two.things
    assert [200] * 12 == read


@pytest.mark.parametrize("stream", [True, False])
def test_a_conversation_goes_on_in_its_account(
    tmp_path: Path, one: Shelf, two: Shelf, *, stream: bool
) -> None:
    with _gate(tmp_path, one, two) as it, it.client() as client:
        first = _respond(client, stream=stream)
        name = next(iter({**one.things, **two.things}))
        home = one if one.things else two
        for _ in range(4):
            _respond(client, previous_response_id=name)

    assert name in first.text
    assert 5 == len(home.things)


def test_a_batch_goes_to_its_file(tmp_path: Path, one: Shelf, two: Shelf) -> None:
    with _gate(tmp_path, one, two) as it, it.client() as client:
        files = [_upload(client) for _ in range(4)]
        batches = [
            client.post("/v1/batches", json={"input_file_id": file}).json()["id"]
            for file in files
        ]

    assert [file.split("-")[1][:3] for file in files] == [
        batch.split("-")[1][:3] for batch in batches
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"json": {"name": "x", "file_ids": ["FILE"]}},
        {"content": b'{"file_ids": ["FILE"]}', "headers": {"content-type": "text/x"}},
        {"content": b'{"file_ids": ["FILE"]}'},
        {"data": {"file_id": "FILE"}, "files": {"x": ("x", b"")}},
        {"data": {"a[0][file_id]": "FILE"}, "files": {"x": ("x", b"")}},
        {"data": {"x": '{"file_ids": ["FILE"]}'}, "files": {"x": ("x", b"")}},
        {"data": {"file_ids[]": '["FILE"]'}, "files": {"x": ("x", b"")}},
    ],
)
def test_no_kind_of_body_gets_round_whose_a_file_is(
    tmp_path: Path, one: Shelf, said: Any
) -> None:
    """What is no file itself is read as JSON, and a form by its fields."""
    with (
        _gate(tmp_path, one) as it,
        it.client() as client,
        it.client(OTHER) as other,
    ):
        request = client.build_request("POST", "/v1/containers", **said)
        file = _upload(client)
        body = request.read().replace(b"FILE", file.encode())
        kind = {"content-type": request.headers.get("content-type", "")}
        asked = len(one.asked)
        reply = other.post("/v1/containers", content=body, headers=kind)

    assert 404 == reply.status_code
    assert asked == len(one.asked)


def test_what_one_team_made_is_not_there_for_another(
    tmp_path: Path, one: Shelf
) -> None:
    with (
        _gate(tmp_path, one) as it,
        it.client() as client,
        it.client(MATE) as mate,
        it.client(OTHER) as other,
    ):
        file, response = _upload(client), _respond(client).json()["id"]
        asked = len(one.asked)
        refused = [
            other.get(f"/v1/files/{file}"),
            other.delete(f"/v1/files/{file}"),
            other.post("/v1/batches", json={"input_file_id": file}),
            _respond(other, previous_response_id=response),
            other.get(f"/v1/files/{file}", headers={"anthropic-version": "2023-06-01"}),
        ]
        refused_before = len(one.asked)
        taken = mate.get(f"/v1/files/{file}")

    assert [404] * 5 == [reply.status_code for reply in refused]
    assert "not_found" == refused[0].json()["error"]["code"]
    assert file not in refused[0].text
    assert asked == refused_before
    assert 200 == taken.status_code


def test_naming_what_another_made_does_not_make_it_ones_own(
    tmp_path: Path, one: Shelf
) -> None:
    one.things["old-1"] = b""
    with _gate(tmp_path, one) as it, it.client() as client, it.client(OTHER) as other:
        before = other.get("/v1/files/old-1").status_code
        after = client.get("/v1/files/old-1").status_code

    assert [200, 200] == [before, after]  # nobody knows whose it is


def test_two_things_of_two_accounts_do_not_go_together(
    tmp_path: Path, one: Shelf, two: Shelf
) -> None:
    with _gate(tmp_path, one, two) as it, it.client() as client:
        names = [_upload(client) for _ in range(6)]
        apart = [next(n for n in names if of.name in n) for of in (one, two)]
        reply = client.post("/v1/vector_stores", json={"file_ids": apart})

    assert 400 == reply.status_code
    assert "different accounts" in reply.text


def test_a_call_that_belongs_to_a_closed_account_waits_for_it(
    tmp_path: Path, one: Shelf, two: Shelf
) -> None:
    with _gate(tmp_path, one, two) as it, it.client() as client:
        name = _upload(client)
        home, away = (one, two) if one.things else (two, one)
        home.status, home.headers = 503, {"retry-after": "30"}
        asked = len(away.asked)
        replies = [client.get(f"/v1/files/{name}") for _ in range(2)]

    assert [503, 503] == [reply.status_code for reply in replies]
    assert 28 <= int(replies[1].headers["retry-after"]) <= 30
    assert asked == len(away.asked)


def test_homes_survive_a_restart(tmp_path: Path, one: Shelf, two: Shelf) -> None:
    with _gate(tmp_path, one, two) as it, it.client() as client:
        made = [_upload(client) for _ in range(4)]
    with (
        _gate(tmp_path, one, two) as it,
        it.client() as client,
        it.client(OTHER) as other,
    ):
        read = [client.get(f"/v1/files/{name}").status_code for name in made]
        refused = other.get(f"/v1/files/{made[0]}").status_code

    assert [200] * 4 == read
    assert 404 == refused


def test_an_account_that_the_config_knows_no_more_holds_up_nobody(
    tmp_path: Path, one: Shelf
) -> None:
    with _gate(tmp_path, one) as it, it.client() as client:
        name = _upload(client)
    one.name = "renamed"
    with _gate(tmp_path, one) as it, it.client() as client, it.client(OTHER) as other:
        read = client.get(f"/v1/files/{name}").status_code
        refused = other.get(f"/v1/files/{name}").status_code

    assert [200, 404] == [read, refused]


def test_long_prompts_that_begin_alike_stay_in_one_account(
    tmp_path: Path, one: Shelf, two: Shelf
) -> None:
    long = [{"role": "system", "content": "You are a helpful clerk. " * 400}]
    with _gate(tmp_path, one, two) as it, it.client() as client:
        for at in range(6):
            it.chat(client, messages=[*long, {"role": "user", "content": str(at)}])
        stayed = sorted([len(one.asked), len(two.asked)])
        for _ in range(6):
            it.chat(client)
        spread = min(len(one.asked), len(two.asked))

    assert [0, 6] == stayed
    assert spread >= 1


def test_a_full_account_keeps_no_prompt(tmp_path: Path, one: Shelf, two: Shelf) -> None:
    long = [{"role": "system", "content": "You are a helpful clerk. " * 400}]
    with (
        _gate(tmp_path, one, two, limit="10 requests/day") as it,
        it.client() as client,
    ):
        statuses = [it.chat(client, messages=long).status_code for _ in range(12)]

    assert [200] * 12 == statuses
    assert [3, 9] == sorted([len(one.asked), len(two.asked)])  # 90 % is full


# The table itself.


class _Loop:
    """Holds what is to be called later, for tests to call."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Any, tuple[Any, ...]]] = []

    def call_later(self, delay_s: float, call: Any, *args: Any) -> Any:
        self.later.append((delay_s, call, args))
        return self

    def cancel(self) -> None:
        pass


def _homes(path: Path, now_us: int = 40 * DAY, **bounds: Any) -> Homes:
    loop: Any = _Loop()
    return Homes(Database(path / "homes.db"), loop, lambda: now_us, **bounds)


def test_what_is_written_is_found_by_whoever_comes_after(tmp_path: Path) -> None:
    first = _homes(tmp_path)
    first.made("file-1", "openai/one", "key/a")
    first.made("file-1", "openai/two", "key/b")
    first.flush()

    found = {home[:2] for home in _homes(tmp_path).find("file-1")}

    assert {("openai/one", "key/a"), ("openai/two", "key/b")} == found


@pytest.mark.parametrize(("is_chosen", "owner"), [(False, "key/a"), (True, "key/b")])
def test_an_id_stays_its_owners_unless_callers_choose_it(
    tmp_path: Path, owner: str, *, is_chosen: bool
) -> None:
    it = _homes(tmp_path)
    it.made("files/x", "gemini/one", "key/a")
    it.flush()
    it.made("files/x", "gemini/one", "key/b", is_chosen=is_chosen)
    it.flush()

    assert [Home("gemini/one", owner, 40 * DAY)] == list(it.find("files/x"))
    assert it.find("files/x") == _homes(tmp_path).find("files/x")


def test_an_id_that_is_told_again_is_written_once(tmp_path: Path) -> None:
    written: list[int] = []
    it = _homes(tmp_path, written=lambda: written.append(1))
    for _ in range(3):
        it.made("file-1", "openai/one", "key/a")
        it.flush()

    assert [1] == written


def test_what_could_not_be_looked_up_takes_nothing_from_its_owner(
    tmp_path: Path,
) -> None:
    first = _homes(tmp_path)
    first.made("file-1", "openai/one", "key/a")
    first.flush()
    it = _homes(tmp_path)
    other = Database(tmp_path / "homes.db")
    with other.writing() as connection:
        connection.execute("ALTER TABLE homes RENAME TO away")
    it.made("file-1", "openai/one", "key/b")
    it.made("file-2", "openai/one", "key/b")
    with other.writing() as connection:
        connection.execute("ALTER TABLE away RENAME TO homes")
    it.flush()

    assert ["key/a"] == [home.owner for home in it.find("file-1")]
    assert ["key/b"] == [home.owner for home in it.find("file-2")]


def test_memory_is_bounded_and_the_rest_is_on_disk(tmp_path: Path) -> None:
    it = _homes(tmp_path, most_known=3)
    for at in range(10):
        it.made(f"file-{at}", "openai/one", "key/a")
        it.flush()

    assert [1] * 10 == [len(it.find(f"file-{at}")) for at in range(10)]
    assert len(it._known) == 3


def test_ids_that_nobody_has_used_for_a_month_are_forgotten(tmp_path: Path) -> None:
    before = _homes(tmp_path, DAY)
    for name in ("file-old", "file-used"):
        before.made(name, "openai/one", "key/a")
    before.flush()
    between = _homes(tmp_path, 20 * DAY)
    between.used(["file-used"], "openai/one")
    between.flush()
    after = _homes(tmp_path, 33 * DAY)
    after.prune(after.oldest_us())

    assert [0, 1] == [len(after.find(name)) for name in ("file-old", "file-used")]


def test_rows_beyond_the_bound_are_forgotten_oldest_first(tmp_path: Path) -> None:
    for at in range(6):
        it = _homes(tmp_path, 40 * DAY + at * HOUR)
        it.made(f"file-{at}", "openai/one", "key/a")
        it.flush()
    it = _homes(tmp_path, 41 * DAY, most_rows=2)
    more = it.prune(it.oldest_us())

    assert not more
    assert [0, 0, 0, 0, 1, 1] == [len(it.find(f"file-{at}")) for at in range(6)]


def test_a_disk_that_fails_loses_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "homes.db")
    loop: Any = _Loop()
    it = Homes(database, loop, lambda: DAY)
    it.made("file-1", "openai/one", "key/a")
    database.close()
    with pytest.raises(StoreUnavailable):
        it.flush()

    assert it.find("file-1")
    with pytest.raises(StoreUnavailable):
        it.find("file-2")


def test_homes_are_written_within_moments(tmp_path: Path) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        database = Database(tmp_path / "homes.db")
        it = Homes(database, loop, lambda: DAY)
        it.made("file-1", "openai/one", "key/a")
        await asyncio.sleep(0.1)
        it._upkeep.cancel()
        database.close()

    asyncio.run(run())

    assert _homes(tmp_path).find("file-1")


_SCRIPT = """
    import asyncio, sys
    from pathlib import Path
    from ratekeeper.gateway.homes import Homes
    from ratekeeper.stores.database import Database

    async def main():
        loop = asyncio.get_running_loop()
        it = Homes(Database(Path(sys.argv[1])), loop, lambda: 1)
        at = 0
        while True:
            it.made(f"file-{at}", "openai/one", "key/a")
            at += 1
            await asyncio.sleep(0.0005)
            if not it._unwritten:
                print(at, flush=True)

    asyncio.run(main())
"""


def test_what_is_on_disk_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "homes.db"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SCRIPT), str(path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(3)][-1]
        os.kill(process.pid, signal.SIGKILL)
    it = _homes(tmp_path)

    assert written > 0
    assert all(it.find(f"file-{at}") for at in range(written))


# Where a call belongs.

ONE, TWO = Home("openai/one", "key/a", 1), Home("openai/two", "key/a", 2)
FOREIGN = Home("openai/one", "key/b", 3)
ELSEWHERE = Home("groq/one", "key/b", 4)


@pytest.mark.parametrize(
    ("found", "home"),
    [
        ([], None),
        ([()], None),
        ([(ONE,), ()], "openai/one"),
        ([(ONE, TWO)], "openai/two"),
        ([(ONE, TWO), (ONE,)], "openai/one"),
        ([(FOREIGN, TWO)], "openai/two"),
        ([(ELSEWHERE,)], None),
    ],
)
def test_a_call_belongs_where_all_lives_that_it_refers_to(
    found: list[tuple[Home, ...]], home: str | None
) -> None:
    assert home == home_of(found, "key/a", ["openai"])


def test_what_is_anothers_is_told_apart_from_what_is_nobodys() -> None:
    with pytest.raises(Foreign):
        home_of([(ONE,), (FOREIGN,)], "key/a", ["openai"])
    with pytest.raises(Apart):
        home_of([(ONE,), (TWO,)], "key/a", ["openai"])


# Staying.


def test_a_beginning_is_remembered_for_five_minutes() -> None:
    it = Stays()
    it.went(1, "openai/one", 0)

    assert "openai/one" == it.find(1, 299_000_000)
    assert it.find(1, 300_000_000) is None


def test_beginnings_are_bounded() -> None:
    it = Stays(most=2)
    for at in range(3):
        it.went(at, "openai/one", 0)

    assert [None, "openai/one", "openai/one"] == [it.find(at, 1) for at in range(3)]


def test_beginnings_differ_by_model_and_by_text() -> None:
    body = json.dumps({"x": "a" * 3000}).encode()
    alike = beginning_of("openai", "gpt-4o", body + b"more")

    assert alike == beginning_of("openai", "gpt-4o", body)
    assert alike != beginning_of("openai", "gpt-4o-mini", body)
    assert alike != beginning_of("openai", "gpt-4o", b"x" + body)
