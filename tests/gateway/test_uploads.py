"""Uploads to Google in several requests: they go on through the gateway."""

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from google import genai
from hypothesis import given
from hypothesis import strategies as st

from ratekeeper.gateway.uploads import Uploads, ids_in, led_here
from tests.gateway import gates
from tests.gateway.gates import Gate, account, client_key, gate

OTHER = "rk-" + "o" * 43
_CHUNK = 8 * 1024 * 1024  # Google's SDK sends as much at once


class _Google(BaseHTTPRequestHandler):
    """Google's resumable uploads, as its REST reference has them."""

    protocol_version = "HTTP/1.1"
    server: ThreadingHTTPServer
    url: str
    files: dict[str, bytes]
    keys: list[str | None]

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        # A bearer beside the key is what Google refuses.
        bare = "authorization" not in self.headers
        self.keys.append(self.headers.get("x-goog-api-key") if bare else None)
        command = self.headers["x-goog-upload-command"]
        if command == "start":
            port = self.server.server_address[1]
            name = f"up_{port}_{len(self.files)}"
            self.files[name] = b""
            host = f"http://127.0.0.1:{port}"
            query = f"upload_id={name}&upload_protocol=resumable&key={self.keys[-1]}"
            url = f"{host}/upload/v1beta/files?{query}"
            self._say({}, {"x-goog-upload-url": url, "x-goog-upload-status": "active"})
            return
        name = ids_in(self.path.partition("?")[2].encode())[0]
        if name not in self.files:
            self._say({"error": {"code": 404, "status": "NOT_FOUND"}}, status=404)
            return
        self.files[name] += data
        if "finalize" in command:
            said = {"file": {"name": f"files/{name}", "mimeType": "text/plain"}}
            self._say(said, {"x-goog-upload-status": "final"})
        else:
            self._say({}, {"x-goog-upload-status": "active"})

    def do_GET(self) -> None:
        name = self.path.split("/")[-1]
        self._say({"name": f"files/{name}"}, status=200 if name in self.files else 404)

    def _say(
        self, said: Any, headers: dict[str, str] | None = None, status: int = 200
    ) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        for field, value in {
            "content-type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(field, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def _google() -> Iterator[Any]:
    handler: Any = type("Handler", (_Google,), {"files": {}, "keys": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        handler.url = f"http://127.0.0.1:{server.server_address[1]}/v1beta/openai"
        yield handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def _gate(folder: Path, *, max_wait: str = "0s") -> Iterator[tuple[Gate, list[Any]]]:
    with _google() as one, _google() as two:
        accounts = [account(it.url, name=f"a{at}") for at, it in enumerate((one, two))]
        keys = [client_key(), client_key("other", OTHER)]
        config = gates.config(
            folder, {"gemini": {"accounts": accounts}}, keys, max_wait=max_wait
        )
        with gate(config) as it:
            yield it, [one, two]


def _sdk(it: Gate, key: str = gates.SECRET) -> genai.Client:
    return genai.Client(api_key=key, http_options={"base_url": f"{it.url}/gemini"})


def _start(it: Gate, **headers: str) -> httpx2.Response:
    with it.client() as client:
        return client.post(
            "/gemini/upload/v1beta/files",
            headers={"x-goog-upload-command": "start", **headers},
            json={"file": {"displayName": "a"}},
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_googles_own_sdk_uploads_a_file_in_parts(tmp_path: Path) -> None:
    data = b"0123456789abcdef" * (_CHUNK // 16) + b"rest"
    with _gate(tmp_path) as (it, behind):
        client = _sdk(it)
        made = [
            client.files.upload(
                file=io.BytesIO(data), config={"mime_type": "text/plain"}
            )
            for _ in range(4)
        ]
        read = [client.files.get(name=str(file.name)).name for file in made]

    assert read == [file.name for file in made]
    assert all(of.files for of in behind)
    assert {data} == {kept for of in behind for kept in of.files.values()}
    assert {gates.UPSTREAM_KEY} == {key for of in behind for key in of.keys}


@pytest.mark.parametrize(("proto", "scheme"), [("", "http"), ("https", "https")])
def test_the_way_on_leads_here_and_holds_no_key(
    tmp_path: Path, proto: str, scheme: str
) -> None:
    with _gate(tmp_path) as (it, _):
        url = _start(it, **{"x-forwarded-proto": proto}).headers["x-goog-upload-url"]

    assert url.startswith(
        f"{scheme}://{it.url.removeprefix('http://')}/gemini/upload/v1beta/files?upload_id"
    )
    assert "key" not in url
    assert gates.UPSTREAM_KEY not in url


def test_only_whoever_began_an_upload_goes_on_with_it(tmp_path: Path) -> None:
    with _gate(tmp_path) as (it, _), it.client(OTHER) as other:
        url = _start(it).headers["x-goog-upload-url"]
        goes_on = {"x-goog-upload-command": "upload, finalize"}
        statuses = [
            other.post(url, headers=goes_on, content=b"x").status_code,
            httpx2.post(
                url.replace("up_", "x_"), headers=goes_on, content=b"x"
            ).status_code,
            httpx2.post(
                f"{url}&upload_id=x", headers=goes_on, content=b"x"
            ).status_code,
            httpx2.get(url.replace("/upload/", "/")).status_code,
            httpx2.post(url, headers=goes_on, content=b"x").status_code,
        ]
        name = next(iter(it.gateway.homes._known))

    assert [404, 401, 401, 401, 200] == statuses
    assert name.startswith("up_")


def test_what_an_upload_made_is_its_owners(tmp_path: Path) -> None:
    with _gate(tmp_path) as (it, _), it.client() as client, it.client(OTHER) as other:
        url = _start(it).headers["x-goog-upload-url"]
        goes_on = {"x-goog-upload-command": "upload, finalize"}
        name = httpx2.post(url, headers=goes_on, content=b"x").json()["file"]["name"]
        statuses = [
            one.get(f"/gemini/v1beta/{name}").status_code for one in (client, other)
        ]

    assert [200, 404] == statuses


@pytest.mark.parametrize(
    "url",
    [
        b"https://g/upload/v1beta/models?upload_id=a",
        b"https://g/upload/../v1beta/files?upload_id=a",
        b"https://elsewhere/v1beta/files",
        b"",
    ],
)
def test_a_way_that_is_not_served_here_is_left_out(url: bytes) -> None:
    headers = [(b"x-goog-upload-url", url), (b"etag", b"1")]

    assert [(b"etag", b"1")] == list(led_here(headers, b"host", is_secure=False))


@pytest.mark.parametrize("host", [b"", b"a b", b"a/b", b"a@b", b"a\r\nb"])
def test_no_host_of_a_callers_making_comes_back_to_it(host: bytes) -> None:
    headers = [(b"location", b"https://g/upload/v1beta/files?upload_id=a")]

    assert [] == list(led_here(headers, host, is_secure=False))


@given(st.binary(max_size=60))
def test_no_query_is_too_odd_to_look_for_an_upload(query: bytes) -> None:
    assert Uploads().secret(query) is None
    assert [] == ids_in(query.replace(b"upload", b""))


def test_uploads_under_way_are_bounded() -> None:
    it = Uploads(most=2)
    for name in ("a", "b", "c"):
        it.began(name, f"secret of {name}")

    assert it.secret(b"upload_id=a") is None
    assert "secret of c" == it.secret(b"x=1&upload_id=c")
