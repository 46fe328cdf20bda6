"""Lists of what an account holds: to each its own, and where the list goes on."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway import relay
from ratekeeper.gateway.lists import Page
from ratekeeper.providers.facts import Dialect
from tests.gateway import gates
from tests.gateway.gates import Gate, account, client_key, gate
from tests.gateway.shelf import Shelf, shelf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

OTHER = "rk-" + "o" * 43


@pytest.fixture
def one() -> Iterator[Shelf]:
    with shelf("one") as it:
        yield it


@contextlib.contextmanager
def _gate(folder: Path, it: Shelf, *limits: str, **said: Any) -> Iterator[Gate]:
    keys = [client_key(team="a", limits=["60 rpm"]), client_key("other", OTHER)]
    said = {"client_keys": keys, "teams": {"a": {}}, **said}
    providers = {"openai": account(it.url, *limits)}
    with gate(gates.config(folder, providers, **said)) as running:
        yield running


def _batch(client: httpx2.Client) -> str:
    return str(client.post("/v1/batches", json={"endpoint": "/x"}).json()["id"])


def _ids(client: httpx2.Client, path: str = "/v1/batches") -> list[str]:
    return [one["id"] for one in client.get(path).json()["data"]]


def test_a_list_shows_what_is_its_callers(tmp_path: Path, one: Shelf) -> None:
    one.make("batches", b"")
    with _gate(tmp_path, one) as it, it.client() as mine, it.client(OTHER) as theirs:
        made = [(_batch(mine), _batch(theirs)) for _ in range(3)]
        page = mine.get("/v1/batches").json()
        seen = _ids(mine), _ids(theirs)

    assert [name for name, _ in made] == seen[0]
    assert [name for _, name in made] == seen[1]
    assert (made[0][0], made[-1][0]) == (page["first_id"], page["last_id"])
    assert 1.5 == page["data"][0]["size"]


def test_a_list_beyond_reason_is_not_read_to_its_end(
    tmp_path: Path, one: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_MOST_LISTED", 10_000)
    with _gate(tmp_path, one) as it, it.client() as client:
        one.raw = json.dumps({"data": [], "x": "y" * 9_900}).encode()
        fits = client.get("/v1/batches").status_code
        one.raw = json.dumps({"data": [], "x": "y" * 10_000}).encode()
        answer = client.get("/v1/batches")

    assert (200, 502) == (fits, answer.status_code)
    assert "ask for fewer" in answer.text


def test_of_several_owners_nobody_sees_what_nobody_made_here(
    tmp_path: Path, one: Shelf
) -> None:
    """It may be any team's: a provider makes some of them itself."""
    one.make("batches", b"")
    with _gate(tmp_path, one) as it, it.client() as client:
        seen = _ids(client)

    assert [] == seen


@pytest.mark.parametrize(
    "terms",
    [
        {"client_keys": [client_key()]},
        {"client_keys": [client_key(team="a"), client_key("mate", OTHER, team="a")]},
        {"client_keys": [], "auth": "none"},
    ],
)
def test_an_owner_without_others_sees_all(
    tmp_path: Path, one: Shelf, terms: dict[str, Any]
) -> None:
    before = one.make("batches", b"")
    with _gate(tmp_path, one, **terms) as it, it.client() as client:
        made = _batch(client)
        one.raw = json.dumps({"data": [{"id": before}, {"id": made}, {}]}).encode()
        seen = client.get("/v1/batches").json()["data"]

    assert [{"id": before}, {"id": made}, {}] == seen


def test_what_has_no_id_and_what_is_everybodys(tmp_path: Path, one: Shelf) -> None:
    with _gate(tmp_path, one) as it, it.client() as client:
        items = [{"id": "skill_1"}, {"id": "pdf"}, {"title": "secret"}, "x"]
        one.raw = json.dumps({"data": items}).encode()
        seen = client.get("/v1/batches").json()["data"]

    assert [{"id": "pdf"}, "x"] == seen


def test_unowned_things_are_shown_where_the_operator_says_so(
    tmp_path: Path, one: Shelf
) -> None:
    before = one.make("batches", b"")
    with (
        _gate(tmp_path, one, unowned="shown") as it,
        it.client() as mine,
        it.client(OTHER) as theirs,
    ):
        made = [(_batch(mine), _batch(theirs)) for _ in range(3)]
        page = mine.get("/v1/batches").json()
        seen = _ids(mine), _ids(theirs)

    assert [before, *(name for name, _ in made)] == seen[0]
    assert [before, *(name for _, name in made)] == seen[1]
    assert (before, made[-1][0]) == (page["first_id"], page["last_id"])
    assert 1.5 == page["data"][0]["size"]


@pytest.mark.parametrize(
    "asked", [{"params": {"upload_id": "x"}}, {"json": {"file_id": "file-x"}}]
)
def test_what_else_a_call_names_shows_nobody_what_is_anothers(
    tmp_path: Path, one: Shelf, asked: dict[str, Any]
) -> None:
    with _gate(tmp_path, one) as it, it.client() as mine, it.client(OTHER) as theirs:
        first, _ = _batch(mine), _batch(theirs)
        page = mine.request("GET", "/v1/batches", **asked).json()

    assert [first] == [one["id"] for one in page["data"]]


def test_a_page_of_others_alone_is_no_end_for_an_sdk(
    tmp_path: Path, one: Shelf
) -> None:
    """An SDK stops at an empty page, and would never come to its own."""
    with _gate(tmp_path, one) as it, it.client() as mine, it.client(OTHER) as theirs:
        first = _batch(mine)
        for _ in range(7):
            _batch(theirs)
        last = _batch(mine)
        sdk = openai.OpenAI(base_url=f"{it.url}/v1", api_key=gates.SECRET)
        with sdk:
            seen = [batch.id for batch in sdk.batches.list(limit=2)]
        none = theirs.get(f"/v1/batches?limit=1&after={last}").json()

    assert [first, last] == seen
    assert [] == none["data"]
    assert not none["has_more"]


def test_pages_looked_through_count_for_the_account_and_once_for_the_caller(
    tmp_path: Path, one: Shelf
) -> None:
    with _gate(tmp_path, one, "1000 requests/minute") as it:
        with it.client(OTHER) as theirs:
            for _ in range(9):
                _batch(theirs)
        with it.client() as mine:
            seen = _ids(mine, "/v1/batches?limit=1")
        (there,) = it.gateway.roster.upstreams["openai"].accounts
        caller = it.gateway.roster.caller(gates.SECRET, 0)
        assert caller is not None
        used = [
            it.gateway.store.status(*target)[0].used
            for target in (*there.targets(""), *caller.targets)
        ]

    assert [] == seen
    assert [9 + 9, 1] == used


def test_of_a_list_without_end_no_more_than_some_pages_are_looked_through(
    tmp_path: Path, one: Shelf
) -> None:
    with _gate(tmp_path, one) as it, it.client() as mine, it.client(OTHER) as theirs:
        for _ in range(30):
            _batch(theirs)
        page = mine.get("/v1/batches?limit=1").json()

    assert 30 + 21 == len(one.asked)
    assert ([], True) == (page["data"], page["has_more"])


def test_a_list_that_cannot_be_read_is_not_passed_on(
    tmp_path: Path, one: Shelf
) -> None:
    one.headers = {"content-encoding": "unknown"}
    with _gate(tmp_path, one) as it, it.client(OTHER) as theirs:
        name = _batch(theirs)
        one.raw = b"\x1f\x8b" + name.encode()
        with it.client() as mine:
            reply = mine.get("/v1/batches")

    assert 502 == reply.status_code
    assert name not in reply.text


NAMES = st.sampled_from(["a", "b", "files/c", "d-1"])


@given(st.lists(NAMES, max_size=8), st.sets(NAMES), st.booleans())
def test_what_is_not_dropped_keeps_its_bytes(
    names: list[str], foreign: set[str], is_google: bool
) -> None:
    member, key = ("files", "name") if is_google else ("data", "id")
    items = [f'{{ "{key}": "{name}", "x": 1.50e+01 }}' for name in names]
    body = f'{{"{member}": [{", ".join(items)}], "other": [1, "é"]}}'.encode()
    page = Page(body, Dialect.GEMINI if is_google else Dialect.OPENAI)
    page.drop(foreign)
    shown = page.body().decode()
    kept = [one[key] for one in json.loads(shown)[member]]

    assert [name for name in names if name not in foreign] == kept
    assert len(kept) == shown.count("1.50e+01")
    assert '"other":[1, "é"]' in shown


PAGE = {"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "nextPageToken": "t&/"}


@pytest.mark.parametrize(
    ("dialect", "query", "asks"),
    [
        (Dialect.OPENAI, b"", b"after=b"),
        (Dialect.OPENAI, b"limit=2&after=x&order=asc", b"limit=2&order=asc&after=b"),
        (Dialect.OPENAI, b"before=x", b"before=a"),
        (Dialect.ANTHROPIC, b"after_id=x", b"after_id=b"),
        (Dialect.ANTHROPIC, b"limit=5&before_id=x", b"limit=5&before_id=a"),
        (Dialect.GEMINI, b"pageSize=2&pageToken=s", b"pageSize=2&pageToken=t%26%2F"),
        (Dialect.COHERE, b"", b"after=b"),
    ],
)
def test_the_next_page_is_asked_for_as_each_api_has_it(
    dialect: Dialect, query: bytes, asks: bytes
) -> None:
    page = Page(json.dumps(PAGE).encode(), dialect)

    assert asks == page.next_query(query)


@pytest.mark.parametrize(
    ("dialect", "said", "name"),
    [
        (Dialect.ANTHROPIC, "next_page", "page"),
        (Dialect.OPENAI, "pagination_token", "pagination_token"),
    ],
)
def test_a_page_that_says_how_the_next_one_is_asked_for_is_followed(
    dialect: Dialect, said: str, name: str
) -> None:
    page = Page(json.dumps({"data": [{"id": "a"}], said: "p/2"}).encode(), dialect)

    assert f"limit=2&{name}=p%2F2".encode() == page.next_query(
        f"limit=2&{name}=p1".encode()
    )


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    "page",
    [
        {"data": [{"id": "a"}], "next_page": None},
        {"data": []},
        {"data": [{"id": "a"}], "has_more": False},
        {"has_more": 1},
    ],
)
def test_the_last_page_has_none_after_it(
    dialect: Dialect, page: dict[str, Any]
) -> None:
    assert Page(json.dumps(page).encode(), dialect).next_query(b"limit=1") is None


def test_a_list_may_stand_for_itself() -> None:
    page = Page(
        b' [{"id": "a", "x": 1.50}, {"id": "b"}, {"name": "c"}]\n', Dialect.OPENAI
    )
    names = page.names
    page.drop({"b"}, nameless=True)

    assert ["a", "b"] == names
    assert b'[{"id": "a", "x": 1.50}]' == page.body()
    assert page.next_query(b"limit=1") is None


def test_the_name_that_a_caller_gave_is_no_id() -> None:
    said = {"batches": [{"batch_id": "b1", "name": "nightly"}, {"name": "nightly"}]}
    page = Page(json.dumps(said).encode(), Dialect.OPENAI)

    assert ["b1"] == page.names


@pytest.mark.parametrize("odd", [rb"\ud83d", b"\xff"])
@pytest.mark.parametrize("member", ["id", "name", "metadata"])
def test_half_a_character_locks_no_list(member: str, odd: bytes) -> None:
    items = [{"id": "a", "é": "x"}, {"id": "c", member: "c?"}, {"id": "b"}]
    said = json.dumps({"data": items}, ensure_ascii=False).encode()
    page = Page(said.replace(b"?", odd), Dialect.OPENAI)
    page.drop({"b"})
    body = page.body().decode("utf-8", "replace")

    assert [*items[:1], {"id": "c", member: "c\ufffd"}] == json.loads(body)["data"]


@pytest.mark.parametrize(
    "body", [b"", b"7", b"{", b"\xff", b'{"data": [}', b"[" * 99_999]
)
def test_what_is_no_page_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Page(body, Dialect.OPENAI)
