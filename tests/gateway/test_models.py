"""Keys of some models only: whatever a request has run, by any name, is among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from ratekeeper.gateway import intake, models, route
from ratekeeper.providers import form
from ratekeeper.providers.facts import Dialect
from tests.gateway import gates
from tests.gateway.gates import account, asgi, client_key, gate

FREE = "rk-" + "f" * 43
MAY, NOT = "gpt-4o-mini", "gpt-5-pro"
FORM = {"content-type": "multipart/form-data; boundary=B"}


class Door:
    """A gateway before a provider that says yes to everything."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.clients: dict[str, httpx2.Client] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.asked.append((scope["path"], body))
        said = b'{"ok": true}'
        headers = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    def ask(self, key: str, path: str, body: Any, **headers: str) -> int:
        """Return the status of a call; one below 400 has reached the provider."""
        before = len(self.asked)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        said = {"content-type": "application/json", **headers}
        reply = self.clients[key].post(path, content=content, headers=said)

        assert (reply.status_code < 400) == (len(self.asked) > before)
        return reply.status_code


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    it = Door()
    keys = [client_key(allow_models=[MAY, "gemini-2.5-flash"]), client_key("b", FREE)]
    with asgi(it) as url:
        google = account(url.removesuffix("/v1") + "/v1beta/openai")
        providers = {
            "openai": account(url),
            "gemini": google,
            "anthropic": account(url.removesuffix("/v1")),
        }
        config = gates.config(tmp_path_factory.mktemp("door"), providers, keys)
        with gate(config) as g, g.client() as some, g.client(FREE) as free:
            it.clients = {"some": some, "free": free}
            yield it


def field(name: str, value: str, more: str = "") -> bytes:
    head = f'--B\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n'
    return f"{head}{value}\r\n".encode()


END = b"--B--\r\n"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": NOT}),
        ("/v1/chat/completions", {"model": MAY, "models": [MAY, NOT]}),
        ("/v1/chat/completions", {"models": [NOT]}),
        ("/v1/responses", {"model": MAY, "tools": [{"type": "x", "model": NOT}]}),
        ("/v1/responses", {"model": MAY, "Agent": NOT}),
        ("/v1/chat/completions", {"model": MAY, "plugins": [{"a_models": [NOT]}]}),
        ("/v1/chat/completions", {"model": MAY, "fallbackModel": NOT}),
        ("/v1/threads/t/runs", {"assistant_id": "a", "model": NOT}),
        ("/v1/batches", {"input_file_id": "file-1", "model": MAY}),
        ("/p/openai/v1/batches", {"input_file_id": "file-1"}),
        ("/v1/evals", {"data_source_config": {"model": MAY}}),
        ("/v1/evals/e/runs", {"data_source": {"model": MAY}}),
        ("/v1/messages/batches", {"requests": [{"params": {"model": NOT}}]}),
        ("/gemini/v1beta/interactions", {"agent": "deep-research-pro"}),
        ("/gemini/v1beta/interactions", {"model": "gemini-3-pro"}),
        ("/gemini/v1beta/dynamic/abc:generateContent", {"contents": []}),
        ("/gemini/v1beta/models/gemini-3-pro:batchGenerateContent", {}),
        (
            "/gemini/v1beta/models/gemini-2.5-flash:batchGenerateContent",
            {"batch": {"requests": [{"request": {"model": "models/gemini-3-pro"}}]}},
        ),
    ],
)
def test_no_other_model_runs(door: Door, path: str, body: dict[str, Any]) -> None:
    assert 403 == door.ask("some", path, body)
    assert 200 == door.ask("free", path, body)


@pytest.mark.parametrize(
    "header", ["x-ms-oai-image-generation-deployment", "azureml-model-deployment"]
)
def test_no_model_runs_that_a_header_names(door: Door, header: str) -> None:
    said = {"model": MAY, "input": "x"}

    assert 403 == door.ask("some", "/v1/responses", said, **{header: NOT})
    assert 200 == door.ask("some", "/v1/responses", said, **{header: MAY})
    assert 200 == door.ask("free", "/v1/responses", said, **{header: NOT})


@pytest.mark.parametrize("values", [(NOT, MAY), (MAY, NOT)])
def test_no_model_runs_that_one_of_two_headers_names(
    door: Door, values: tuple[str, str]
) -> None:
    headers = [("x-ms-oai-image-generation-deployment", one) for one in values]
    said = {"model": MAY, "input": "x"}
    reply = door.clients["some"].post("/v1/responses", json=said, headers=headers)

    assert 403 == reply.status_code


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/threads/runs", {"assistant_id": "asst_1"}),
        ("/v1/threads/t/runs", {"assistant_id": "asst_1"}),
        ("/v1/responses", {"prompt": {"id": "p"}, "tools": [{"model": MAY}]}),
        ("/gemini/v1beta/interactions", {"input": "x"}),
        ("/v1/chat/completions", {"model": MAY, "MODEL": MAY}),
        ("/v1/chat/completions", {"model": {"id": NOT}}),
        ("/v1/chat/completions", {"model": MAY, "models": [{"id": NOT}]}),
        ("/v1/chat/completions", {"model": MAY, "x": {"model": [[NOT]]}}),
        ("/v1/messages/batches", {"requests": [{"model": MAY, "Model": MAY}]}),
    ],
)
def test_what_leaves_its_model_open_is_refused(
    door: Door, path: str, body: dict[str, Any]
) -> None:
    assert 400 == door.ask("some", path, body)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"models": [MAY]}),
        (
            "/v1/chat/completions",
            {
                "model": MAY,
                "messages": [{"role": "user", "model": NOT}],
                "tools": [{"function": {"parameters": {"model": NOT}}}],
                "metadata": {"model": NOT},
            },
        ),
        ("/v1/threads/t/runs", {"assistant_id": "asst_1", "model": MAY}),
        ("/v1/threads", {}),
        ("/v1/batches/batch_1/cancel", {}),
        ("/v1/responses/resp_1/cancel", {}),
        ("/v1/messages/batches", {"requests": [{"params": {"model": MAY}}]}),
        (
            "/gemini/v1beta/models/gemini-2.5-flash:batchEmbedContents",
            {"requests": [{"model": "models/gemini-2.5-flash"}]},
        ),
        ("/gemini/v1beta/cachedContents", {"model": "models/gemini-2.5-flash"}),
    ],
)
def test_a_model_of_the_key_runs_wherever_it_is_named(
    door: Door, path: str, body: dict[str, Any]
) -> None:
    assert 200 == door.ask("some", path, body)


FORMS = {
    "another model": field("model", NOT),
    "two models": field("model", MAY) + field("model", NOT),
    "several": field("model", MAY) + field("models[]", NOT),
    "a model in other letters": field("model", MAY) + field("Model", NOT),
    "an element of a list": field("model[]", MAY),
    "a model as a file": field("model", MAY, '; filename="x"'),
    "text before the form": f'name="model"\r\n\r\n{MAY}\r\n'.encode()
    + field("model", NOT),
    "a part in a file": field("file", f"--C\r\n{MAY}", '; filename="x"'),
}


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/audio/transcriptions"])
@pytest.mark.parametrize("said", FORMS.values(), ids=FORMS.keys())
def test_no_form_has_another_model_run(door: Door, path: str, said: bytes) -> None:
    assert door.ask("some", path, said + END, **FORM) in {400, 403}
    assert 200 == door.ask(
        "some", path, field("model", MAY) + field("x", "y") + END, **FORM
    )


def test_a_form_that_is_no_form_costs_no_time(door: Door) -> None:
    """Each of its lines could begin what was looked for."""
    body = b"name=model\r\n" * (1024 * 1024 // 12)

    assert 400 == door.ask("some", "/v1/images/edits", body, **FORM)


def test_a_body_of_no_type_is_read(door: Door) -> None:
    body = {"model": NOT}

    assert 403 == door.ask("some", "/v1/images/edits", body, **{"content-type": "x/y"})


def test_every_model_of_a_body_is_found() -> None:
    tools = [{"agent": "3", "their_models": ["4", {"model": "5"}], "is_model": True}]
    said = {"a": [{"model": "1", "b": {"models": ["2", 4], "model": None}}, tools]}

    assert ["1", "2", "3", "4", "5"] == sorted(models.named(said))


def test_google_writes_models_with_where_they_are() -> None:
    assert "m" == models.bare("publishers/google/models/m", Dialect.GEMINI)
    assert "a/m" == models.bare("a/m", Dialect.OPENAI)


def test_the_model_of_a_form_is_that_of_its_field() -> None:
    assert "a" == intake.model_in([("x", b"b"), ("model", b"a")])
    assert "" == intake.model_in([("remodel", b"b"), ("x[model]", b"c")])

    with pytest.raises(form.Unclear):
        intake.model_in([("model.x", b"b")])


def test_cancelling_runs_nothing() -> None:
    found = route.find(b"/v1/responses/resp_1/cancel", [])

    assert found is not None
    assert not models.is_needed(found)
