"""A provider for SDKs to talk to: OpenAI's, Anthropic's and Gemini's APIs at one URL.

It calls the tools it is given, fills in the forms it is asked for and keeps files and
batches; what it says depends on the request alone. It notes each request, so that what
came through the gateway can be held against what came straight.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email
import email.policy
import json
import queue
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from tests.gateway import gates
from tests.gateway.sdks import claude, gemini, gpt
from tests.gateway.sdks.mind import Json

SLOW, ENDLESS, MODEL = "slow", "endless", "the-model"
_SLOW_S = 4.0
_NOT_COMPARED = frozenset(
    [
        "accept-encoding",  # the gateway reads what comes back
        "authorization",
        "connection",
        "content-length",  # the gateway asks for usage
        "host",
        "transfer-encoding",
        "x-api-key",
        "x-goog-api-key",
    ]
)
_BOUNDARY = re.compile(r"boundary=\S+")


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request as the provider got it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        return json.loads(self.body)  # type: ignore[no-any-return]

    @property
    def model(self) -> str:
        """The model that a text is asked of, "" where none is."""
        if match := re.search(r"/models/([^/:]+):", self.path):
            return match[1]
        is_json = self.headers.get("content-type") == "application/json" and self.body
        return str(self.json.get("model", "")) if is_json else ""

    @property
    def root(self) -> str:
        return f"http://{self.headers['host']}"

    def told(self) -> tuple[Any, ...]:
        """Return what must be the same, whichever way it came."""
        headers = {
            name: _BOUNDARY.sub("", value)
            for name, value in self.headers.items()
            if name not in _NOT_COMPARED
        }
        body: Any = len(self.body)
        if headers.get("content-type") == "application/json" and self.body:
            body = self.json
            body.pop("stream_options", None)  # the gateway asks for usage
        return self.method, self.path, self.query, headers, body

    def upload(self) -> tuple[str, bytes]:
        """Return the name and the bytes of the file in a form."""
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        message = email.message_from_bytes(head + self.body, policy=email.policy.HTTP)
        for part in message.iter_parts():
            if name := part.get_filename():
                data = part.get_payload(decode=True)
                assert isinstance(data, bytes)
                return name, data
        raise AssertionError


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """An answer: a whole body, or parts of a stream."""

    body: Json | bytes | Iterable[bytes]
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Provider:
    """The app; `seen` is what was asked, `left` the models whose callers hung up."""

    def __init__(self) -> None:
        self.seen: list[Asked] = []
        self.left: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._files: dict[str, tuple[str, bytes]] = {}
        self._batches: dict[str, Json] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = await _read(scope, receive)
        self.seen.append(asked)
        gone = asyncio.create_task(receive())  # the next message is that they left
        answering = asyncio.create_task(self._reply(asked, send))
        await asyncio.wait([gone, answering], return_when=asyncio.FIRST_COMPLETED)
        for task in (gone, answering):
            if not task.done():
                task.cancel()
                if task is answering:
                    self.left.put(asked.model)
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _reply(self, asked: Asked, send: Any) -> None:
        await _send(send, await self._answer(asked))

    async def _answer(self, asked: Asked) -> Told:
        if asked.path.startswith("/shut"):
            body = _api(asked).error(503, "we are overloaded")
            return Told(body, 503, ((b"retry-after", b"300"),))
        if not _has_key(asked):
            return Told(_api(asked).error(401, "no such key"), 401)
        if asked.model == SLOW or asked.path.startswith("/silent"):
            await asyncio.sleep(_SLOW_S)
        is_gemini = _api(asked) is gemini
        for method, pattern, serve in _GEMINI if is_gemini else _ROUTES:
            match = re.fullmatch(pattern, asked.path)
            if method == asked.method and match is not None:
                found: Told | None = serve(self, asked, *match.groups())
                if found is not None:
                    return found
        return Told(_api(asked).error(404, "there is no such thing"), 404)

    # Texts.

    def chat(self, asked: Asked) -> Told:
        said = asked.json
        if not said.get("stream"):
            return Told(gpt.chat(said))
        endless = asked.model == ENDLESS
        return Told(gpt.endless(said) if endless else gpt.chat_stream(said))

    def response(self, asked: Asked) -> Told:
        said = asked.json
        return Told(
            gpt.response_stream(said) if said.get("stream") else gpt.response(said)
        )

    def count_response(self, asked: Asked) -> Told:
        return Told({"object": "response.input_tokens", "input_tokens": 11})

    def embed(self, asked: Asked) -> Told:
        return Told(gpt.embeddings(asked.json))

    def message(self, asked: Asked) -> Told:
        said = asked.json
        if not said.get("stream"):
            return Told(claude.message(said))
        endless = asked.model == ENDLESS
        return Told(claude.endless(said) if endless else claude.stream(said))

    def count_message(self, asked: Asked) -> Told:
        return Told({"input_tokens": 11})

    def generate(self, asked: Asked, name: str, verb: str) -> Told | None:
        match verb:
            case "generateContent":
                return Told(gemini.generated(name, asked.json))
            case "streamGenerateContent" if name == ENDLESS:
                return Told(gemini.endless(name))
            case "streamGenerateContent":
                return Told(gemini.stream(name, asked.json))
            case "countTokens":
                return Told({"totalTokens": 11})
            case "batchEmbedContents":
                return Told(gemini.embeddings(asked.json))
            case "batchGenerateContent":
                return Told(gemini.batch(name, "PENDING"))
            case _:
                return None

    # Lists, files and batches.

    def models(self, asked: Asked) -> Told:
        api = claude if _api(asked) is claude else gpt
        return Told(api.listed([api.model(MODEL)]))

    def google_models(self, asked: Asked) -> Told:
        return Told({"models": [gemini.model(MODEL)]})

    def keep(self, asked: Asked) -> Told:
        name, data = asked.upload()
        self._files["file-1"] = name, data
        return Told(self._file(asked, "file-1"))

    def _file(self, asked: Asked, name: str) -> Json:
        filename, data = self._files[name]
        if _api(asked) is claude:
            return claude.file(name, len(data), filename)
        return gpt.file(name, len(data), filename)

    def files(self, asked: Asked) -> Told:
        api = claude if _api(asked) is claude else gpt
        return Told(api.listed([self._file(asked, name) for name in self._files]))

    def file(self, asked: Asked, name: str) -> Told | None:
        return Told(self._file(asked, name)) if name in self._files else None

    def content(self, asked: Asked, name: str) -> Told:
        return Told(self._files[name][1])

    def drop(self, asked: Asked, name: str) -> Told:
        del self._files[name]
        kind = {"type": "file_deleted"} if _api(asked) is claude else {"object": "file"}
        return Told({"id": name, "deleted": True, **kind})

    def batch(self, asked: Asked) -> Told:
        self._batches["batch_1"] = asked.json
        return Told(gpt.batch(asked.json["input_file_id"], "validating"))

    def batch_of(self, asked: Asked, name: str) -> Told:
        source = self._batches[name]["input_file_id"]
        return Told(gpt.batch(source, "completed"))

    def batches(self, asked: Asked) -> Told:
        row = self._batches["batch_1"]
        return Told(gpt.listed([gpt.batch(row["input_file_id"], "completed")]))

    def message_batch(self, asked: Asked) -> Told:
        self._batches["msgbatch_1"] = asked.json
        return Told(claude.batch(asked.root, "in_progress"))

    def message_batch_of(self, asked: Asked, _: str) -> Told:
        return Told(claude.batch(asked.root, "ended"))

    def message_results(self, asked: Asked, name: str) -> Told:
        return Told(claude.results(self._batches[name]["requests"]))

    def begin_upload(self, asked: Asked) -> Told:
        url = (
            f"{asked.root}/upload/v1beta/files?upload_id=one&upload_protocol=resumable"
        )
        return Told({}, headers=((b"x-goog-upload-url", url.encode()),))

    def upload(self, asked: Asked) -> Told:
        if "upload_id" not in asked.query:
            return self.begin_upload(asked)
        self._files["one"] = "one", asked.body
        body = {"file": gemini.file("one", len(asked.body), asked.root)}
        return Told(body, headers=((b"x-goog-upload-status", b"final"),))

    def google_file(self, asked: Asked, name: str) -> Told | None:
        if name not in self._files:
            return None
        return Told(gemini.file(name, len(self._files[name][1]), asked.root))

    def google_files(self, asked: Asked) -> Told:
        names = self._files
        return Told({"files": [gemini.file(n, 1, asked.root) for n in names]})

    def google_drop(self, asked: Asked, name: str) -> Told:
        del self._files[name]
        return Told({})

    def google_batch(self, asked: Asked, _: str) -> Told:
        return Told(gemini.batch(MODEL, "SUCCEEDED"))


_Serve = Callable[..., Told | None]
_Routes = tuple[tuple[str, str, _Serve], ...]
_ROUTES: _Routes = (
    ("POST", "/v1/chat/completions", Provider.chat),
    ("POST", "/v1/responses", Provider.response),
    ("POST", "/v1/responses/input_tokens", Provider.count_response),
    ("POST", "/v1/embeddings", Provider.embed),
    ("POST", "/v1/messages", Provider.message),
    ("POST", "/v1/messages/count_tokens", Provider.count_message),
    ("POST", "/v1/messages/batches", Provider.message_batch),
    ("GET", "/v1/messages/batches/([^/]+)", Provider.message_batch_of),
    ("GET", "/v1/messages/batches/([^/]+)/results", Provider.message_results),
    ("GET", "/v1/models", Provider.models),
    ("POST", "/v1/files", Provider.keep),
    ("GET", "/v1/files", Provider.files),
    ("GET", "/v1/files/([^/]+)", Provider.file),
    ("GET", "/v1/files/([^/]+)/content", Provider.content),
    ("DELETE", "/v1/files/([^/]+)", Provider.drop),
    ("POST", "/v1/batches", Provider.batch),
    ("GET", "/v1/batches", Provider.batches),
    ("GET", "/v1/batches/([^/]+)", Provider.batch_of),
)
_GEMINI: _Routes = (
    ("POST", r"/v1(?:beta)?/models/([^/:]+):(\w+)", Provider.generate),
    ("GET", r"/v1(?:beta)?/models", Provider.google_models),
    ("POST", r"/upload/v1(?:beta)?/files", Provider.upload),
    ("GET", r"/v1(?:beta)?/files", Provider.google_files),
    ("GET", r"/v1(?:beta)?/files/([^/:]+)", Provider.google_file),
    ("DELETE", r"/v1(?:beta)?/files/([^/:]+)", Provider.google_drop),
    ("GET", r"/v1(?:beta)?/batches/([^/]+)", Provider.google_batch),
)


def _api(asked: Asked) -> Any:
    if "x-goog-api-client" in asked.headers or "upload_id=" in asked.query:
        return gemini
    is_claude = "/messages" in asked.path or "anthropic-version" in asked.headers
    return claude if is_claude else gpt


def _has_key(asked: Asked) -> bool:
    if "upload_id=" in asked.query:  # proof enough to Google
        return True
    bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
    keys = [bearer, *(asked.headers.get(n) for n in ("x-api-key", "x-goog-api-key"))]
    query = urllib.parse.parse_qs(asked.query).get("key", [])
    return {gates.UPSTREAM_KEY} == {key for key in (*keys, *query) if key}


async def _read(scope: Any, receive: Callable[[], Awaitable[Any]]) -> Asked:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {n.decode(): v.decode("latin-1") for n, v in scope["headers"]}
    query = scope["query_string"].decode()
    return Asked(scope["method"], scope["path"], query, headers, body)


async def _send(send: Any, told: Told) -> None:
    data = json.dumps(told.body).encode() if isinstance(told.body, dict) else told.body
    parts: Iterator[bytes] = iter([data] if isinstance(data, bytes) else data)
    kind = b"application/json" if isinstance(data, bytes) else b"text/event-stream"
    headers = [(b"content-type", kind), (b"x-request-id", b"req_1")]
    headers += [(b"request-id", b"req_1"), *told.headers]
    if isinstance(data, bytes):
        headers.append((b"content-length", b"%d" % len(data)))
    start = {"type": "http.response.start", "status": told.status}
    await send({**start, "headers": headers})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})
