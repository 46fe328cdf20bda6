"""What comes of a thing that a team made is that team's as well."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway import gates
from tests.gateway.gates import account, asgi, client_key, gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx2

OTHER = "rk-" + "o" * 43


@dataclasses.dataclass
class Told:
    """A provider that answers a path with what it is told to."""

    answers: dict[tuple[str, str], Any] = dataclasses.field(default_factory=dict)
    asked: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    status: int = 200  # of every answer to come
    headers: list[tuple[bytes, str]] = dataclasses.field(default_factory=list)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.asked.append(scope)
        while (await receive()).get("more_body"):
            pass
        said = self.answers.get((scope["method"], scope["path"]), {})
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        kind = b"application/json" if body[:1] in b"{[" else b"text/event-stream"
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        headers += [(name, value.encode()) for name, value in self.headers]
        start = {
            "type": "http.response.start",
            "status": self.status,
            "headers": headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": body})


@dataclasses.dataclass
class Two:
    """Two owners of one account, and the provider behind it."""

    told: Told
    mine: httpx2.Client
    theirs: httpx2.Client

    def have(self, path: str, answer: Any, *, by: str = "POST") -> None:
        """Have the provider answer a call of mine."""
        name = path.removeprefix("/anthropic").removeprefix("/gemini")
        self.told.answers[(by, name)] = answer
        reply = self.mine.request(by, path, json=None if by == "GET" else {"x": 1})

        assert 200 == reply.status_code

    def statuses(self, path: str, **said: Any) -> tuple[int, int]:
        """Return what a call is answered: of mine, and of theirs."""
        verb = "POST" if said else "GET"
        mine = self.mine.request(verb, path, **said)
        return mine.status_code, self.theirs.request(verb, path, **said).status_code


@contextlib.contextmanager
def _two(folder: Path, provider: str, base: str = "/v1") -> Iterator[Two]:
    told = Told()
    keys = [client_key("mine"), client_key("theirs", OTHER)]
    with asgi(told) as url:
        providers = {provider: account(url.removesuffix("/v1") + base)}
        config = gates.config(folder, providers, keys)
        with gate(config) as it, it.client() as mine, it.client(OTHER) as theirs:
            yield Two(told, mine, theirs)


@pytest.mark.parametrize("is_listed", [False, True])
def test_the_files_that_a_batch_wrote(tmp_path: Path, *, is_listed: bool) -> None:
    with _two(tmp_path, "openai") as it:
        it.have("/v1/batches", {"id": "batch_1", "output_file_id": None})
        done = {
            "id": "batch_1",
            "output_file_id": "file-out",
            "error_file_id": "file-e",
        }
        if is_listed:
            it.have("/v1/batches", {"object": "list", "data": [done]}, by="GET")
        else:
            it.have("/v1/batches/batch_1", done, by="GET")
        seen = [it.statuses(f"/v1/files/{name}") for name in ("file-out", "file-e")]

    assert [(200, 404)] * 2 == seen


def test_a_file_of_several_parts(tmp_path: Path) -> None:
    with _two(tmp_path, "openai") as it:
        it.have("/v1/uploads", {"id": "upload_1"})
        done = {"id": "upload_1", "file": {"id": "file-up"}}
        it.have("/v1/uploads/upload_1/complete", done)
        seen = it.statuses("/v1/files/file-up")

    assert (200, 404) == seen


def test_the_files_and_the_model_of_a_fine_tuning(tmp_path: Path) -> None:
    model = "ft:gpt-4o-mini:org:mine:abc123"
    with _two(tmp_path, "openai") as it:
        it.have("/v1/fine_tuning/jobs", {"id": "ftjob-1", "result_files": []})
        done = {"id": "ftjob-1", "fine_tuned_model": model, "result_files": ["file-r"]}
        it.have("/v1/fine_tuning/jobs/ftjob-1", done, by="GET")
        seen = [
            it.statuses(f"/v1/{one}") for one in (f"models/{model}", "files/file-r")
        ]

    assert [(200, 404)] * 2 == seen


_CALL = {"type": "code_interpreter_call", "id": "ci_1", "container_id": "cntr_1"}


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "resp_1", "pad": "x" * 40_000, "output": [_CALL]},
        b'data: {"response": {"id": "resp_1"}}\n\n'
        b'data: {"item": ' + json.dumps(_CALL).encode() + b"}\n\n",
    ],
)
def test_the_container_that_a_model_ran_code_in(tmp_path: Path, answer: Any) -> None:
    with _two(tmp_path, "openai") as it:
        it.have("/v1/responses", answer)
        listed = {"data": [{"id": "cntr_1"}, {"id": "cntr_2"}]}
        it.told.answers[("GET", "/v1/containers")] = listed
        seen = it.statuses("/v1/containers/cntr_1/files")
        lists = [
            one.get("/v1/containers").json()["data"] for one in (it.mine, it.theirs)
        ]

    assert (200, 404) == seen
    assert [[{"id": "cntr_1"}], []] == lists


_EXECUTED = {
    "id": "msg_1",
    "content": [
        {"type": "tool_use", "input": {"file_id": "file_theirs", "type": "own"}},
        {
            "content": {
                "content": [{"type": "code_execution_output", "file_id": "file_1"}]
            }
        },
    ],
    "container": {"id": "container_1", "expires_at": "x"},
}


def test_what_a_model_of_anthropics_made_with_code(tmp_path: Path) -> None:
    path = "/anthropic/v1/messages"
    said = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": []}
    with _two(tmp_path, "anthropic", "") as it:
        it.told.answers[("POST", "/v1/messages")] = _EXECUTED
        it.mine.post(
            path, json={**said, "tools": [{"type": "code_execution_20250825"}]}
        )
        seen = [
            it.statuses(f"/anthropic/v1/files/{name}")
            for name in ("file_1", "file_theirs")
        ]
        seen.append(it.statuses(path, json={**said, "container": "container_1"}))

    assert [(200, 404), (200, 200), (200, 404)] == seen


def test_a_container_that_a_call_names_does_not_become_its_callers(
    tmp_path: Path,
) -> None:
    path = "/anthropic/v1/messages"
    said = {"model": "claude-haiku-4-5", "max_tokens": 5, "messages": []}
    with _two(tmp_path, "anthropic", "") as it:
        it.told.answers[("POST", "/v1/messages")] = {"container": {"id": "container_1"}}
        seen = it.statuses(path, json={**said, "container": "container_1"})

    assert (200, 200) == seen


@pytest.mark.parametrize(
    ("made", "done"),
    [
        ("batches/b1", {"response": {"responsesFile": "files/batch-1"}}),
        (
            "models/veo/operations/op1",
            {"response": {"video": {"uri": "files/batch-1:download?alt=media"}}},
        ),
    ],
)
def test_what_a_long_operation_of_googles_made(
    tmp_path: Path, made: str, done: dict[str, Any]
) -> None:
    base = "/gemini/v1beta"
    with _two(tmp_path, "gemini", "/v1beta/openai") as it:
        it.have(f"{base}/models/g:predictLongRunning", {"name": made})
        it.have(f"{base}/{made}", {"name": made, **done}, by="GET")
        seen = it.statuses(f"{base}/files/batch-1:download?alt=media")

    assert (200, 404) == seen


_TUNED = "ft:gpt-4o-mini:org:mine:abc123"


def test_a_model_is_deleted_by_its_owner_alone(tmp_path: Path) -> None:
    """Everybody sees its name in the list of models."""
    with _two(tmp_path, "openai") as it:
        it.have("/v1/fine_tuning/jobs", {"id": "ftjob-1"})
        before = it.mine.delete(f"/v1/models/{_TUNED}").status_code
        done = {"id": "ftjob-1", "fine_tuned_model": _TUNED}
        it.have("/v1/fine_tuning/jobs/ftjob-1", done, by="GET")
        both = [
            one.delete(f"/v1/models/{_TUNED}{of}")
            for of in ("", ":ckpt-step-10")
            for one in (it.theirs, it.mine)
        ]
        old = it.mine.request("DELETE", "/v1/models/ft:x", json={"file_id": "ftjob-1"})

    assert 403 == before
    assert [404, 200] * 2 == [reply.status_code for reply in both]
    assert 403 == old.status_code


@pytest.mark.parametrize(
    ("source", "statuses"),
    [
        ({"type": "file_content", "content": [{"item": {"id": "file-1"}}]}, (200, 200)),
        ({"type": "file_id", "id": "file-1"}, (200, 404)),
        ({"type": "file_id", "id": "file-old"}, (200, 200)),
        ({"type": "stored_completions"}, (403, 403)),
        ({"type": "responses"}, (403, 403)),
        ({"type": ["file_id"]}, (403, 403)),
        ([{"type": "stored_completions"}], (403, 403)),
        ("stored_completions", (403, 403)),
        (None, (200, 200)),
    ],
)
def test_an_eval_reads_nothing_of_others(
    tmp_path: Path, source: dict[str, Any], statuses: tuple[int, int]
) -> None:
    with _two(tmp_path, "openai") as it:
        it.have("/v1/files", {"id": "file-1"})
        run = {"data_source": {"type": "jsonl", "source": source}}
        seen = it.statuses("/v1/evals/eval_1/runs", json=run)

    assert statuses == seen


@pytest.mark.parametrize(
    "body",
    [
        b'{"data_source": %b, "data_source": {"source": {"type": "file_content"}}}',
        b'{"data_source": {"source": {"type": "file_content"}, "source": %b}}',
        b'{"name": "\xe9", "data_source": {"source": %b}}',
        b'{"metadata": ' + b"[" * 1100 + b"]" * 1100 + b', "data_source": %b}',
        b'{"data_source": {"source": %b}, }',
    ],
)
def test_no_way_of_writing_it_has_an_eval_read_what_is_others(
    tmp_path: Path, body: bytes
) -> None:
    with _two(tmp_path, "openai") as it:
        said = body.replace(b"%b", b'{"type": "stored_completions"}')
        seen = it.statuses("/v1/evals/eval_1/runs", content=said)

    assert (400, 400) == seen


def test_an_owner_without_others_does_as_it_likes(tmp_path: Path) -> None:
    told = Told()
    with asgi(told) as url:
        config = gates.config(tmp_path, {"openai": account(url)})
        with gate(config) as it, it.client() as client:
            source = {"data_source": {"source": {"type": "stored_completions"}}}
            replies = [
                client.delete(f"/v1/models/{_TUNED}"),
                client.post("/v1/evals/eval_1/runs", json=source),
            ]

    assert [200, 200] == [reply.status_code for reply in replies]


def test_an_answer_that_names_anothers_gives_it_to_nobody(tmp_path: Path) -> None:
    with _two(tmp_path, "openai") as it:
        it.have("/v1/batches", {"id": "batch_1"})
        taken = it.theirs.post("/v1/batches", json={"x": 1})
        seen = it.statuses("/v1/batches/batch_1")

    assert 200 == taken.status_code
    assert (200, 404) == seen


@pytest.mark.parametrize("name", ["file-1 ", "\u00a0file-1", "file-1\u200b"])
def test_no_sign_that_nobody_sees_makes_an_id_another(
    tmp_path: Path, name: str
) -> None:
    with _two(tmp_path, "openai") as it:
        it.have("/v1/files", {"id": "file-1"})
        seen = it.statuses("/v1/batches", json={"input_file_id": name})

    assert (200, 404) == seen


def test_half_a_character_in_an_id_is_no_error_of_the_gateway(tmp_path: Path) -> None:
    odd = rb'{"id": "cntr_\ud800"}'
    with _two(tmp_path, "openai") as it:
        it.have("/v1/containers", odd)
        it.have("/v1/containers", {"id": "cntr_1"})
        said = {"content": rb'{"model": "x", "previous_response_id": "r\ud800"}'}
        seen = it.statuses("/v1/responses", **said)

    assert (200, 200) == seen


def test_a_name_that_has_become_free_at_google_is_its_next_makers(
    tmp_path: Path,
) -> None:
    """Callers choose names of files there, and Google forgets files after two days."""
    path = "/gemini/v1beta/files"
    with _two(tmp_path, "gemini", "/v1beta/openai") as it:
        it.have(path, {"file": {"name": "files/report"}})
        it.theirs.post(path, json={"x": 1})
        seen = it.statuses(f"{path}/report")

    assert (404, 200) == seen


def test_nobody_takes_a_file_of_googles_by_what_it_writes_in_a_batch(
    tmp_path: Path,
) -> None:
    base, path = "/gemini/v1beta", "/v1beta/batches/b1:updateGenerateContentBatch"
    said = {"uri": "files/report", "responsesFile": "files/report"}
    with _two(tmp_path, "gemini", "/v1beta/openai") as it:
        it.have(f"{base}/files", {"file": {"name": "files/report"}})
        it.told.answers[("POST", "/v1beta/models/g:batchGenerateContent")] = {
            "name": "batches/b1"
        }
        it.told.answers[("PATCH", path)] = {"output": {"x": [{"metadata": said}]}}
        it.theirs.post(f"{base}/models/g:batchGenerateContent", json={"x": 1})
        changed = it.theirs.patch(f"/gemini{path}", json={"x": 1})
        seen = it.statuses(f"{base}/files/report")

    assert 200 == changed.status_code
    assert (200, 404) == seen


def test_a_name_that_a_caller_gives_takes_nothing_from_others(tmp_path: Path) -> None:
    with _two(tmp_path, "openai") as it:
        it.have("/v1/vector_stores", {"id": "vs_1", "name": "file-old"})
        it.have("/v1/containers", {"id": "cntr_1", "name": "openai-sheets"})
        said = {"model": "x", "tools": [{"skill_id": "openai-sheets"}]}
        seen = [
            it.statuses("/v1/files/file-old"),
            it.statuses("/v1/responses", json=said),
        ]

    assert [(200, 200)] * 2 == seen


@pytest.mark.parametrize(
    ("provider", "made", "listed"),
    [
        ("together", {"job": {"id": "b-1"}}, [{"id": "b-1"}]),
        (
            "xai",
            {"batch_id": "b-1", "name": "nightly"},
            {"batches": [{"batch_id": "b-1", "name": "nightly"}]},
        ),
    ],
)
def test_batches_that_are_not_as_openais_have_an_owner(
    tmp_path: Path, provider: str, made: Any, listed: Any
) -> None:
    with _two(tmp_path, provider) as it:
        it.have("/v1/batches", made)
        it.told.answers[("GET", "/v1/batches")] = listed
        seen = it.statuses("/v1/batches/b-1")
        lists = [one.get("/v1/batches").json() for one in (it.mine, it.theirs)]
    nothing = [] if isinstance(listed, list) else {"batches": []}

    assert (200, 404) == seen
    assert [listed, nothing] == lists


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("fields=files(uri)&pageSize=2", {}),
        ("$httpMethod=GET&pageSize=2", {}),
        ("pageSize=2", {"x-http-method-override": "GET", "x-goog-fieldmask": "files"}),
    ],
)
def test_nobody_has_google_answer_less_than_it_would(
    tmp_path: Path, query: str, headers: dict[str, str]
) -> None:
    with _two(tmp_path, "gemini", "/v1beta/openai") as it:
        path = f"/gemini/v1beta/files?{query}"
        reply = it.mine.get(path, headers=headers)
        (asked,) = it.told.asked

    assert 200 == reply.status_code
    assert b"pageSize=2" == asked["query_string"]
    assert not headers.keys() & {name.decode() for name, _ in asked["headers"]}


def test_an_error_shows_the_key_of_the_account_nowhere(tmp_path: Path) -> None:
    with _two(tmp_path, "openai") as it:
        it.told.status = 400
        it.told.headers = [(b"x-echo", f"Bearer {gates.UPSTREAM_KEY}!")]
        it.told.answers[("GET", "/v1/models")] = {"error": gates.UPSTREAM_KEY}
        reply = it.mine.get("/v1/models")

    assert ("Bearer [key]!", {"error": "[key]"}) == (
        reply.headers["x-echo"],
        reply.json(),
    )


def test_what_nobody_is_known_to_own_becomes_nobodys_by_its_results(
    tmp_path: Path,
) -> None:
    with _two(tmp_path, "openai") as it:
        done = {"id": "batch_old", "output_file_id": "file-old"}
        it.have("/v1/batches/batch_old", done, by="GET")
        seen = it.statuses("/v1/files/file-old")

    assert (200, 200) == seen
