"""A small provider that keeps what is made with it: files, responses, batches."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclasses.dataclass
class Shelf:
    """One account of a provider: what is on it, and what was asked of it."""

    name: str
    url: str = ""
    things: dict[str, bytes] = dataclasses.field(default_factory=dict)
    asked: list[tuple[str, str, bytes]] = dataclasses.field(default_factory=list)
    status: int = 200  # of every answer to come
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    raw: bytes = b""  # instead of every list to come

    def make(self, kind: str, body: bytes) -> str:
        """Put something on it and return its id."""
        name = f"{kind}-{self.name}{len(self.things)}"
        self.things[name] = body
        return name


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shelf: Shelf

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def do_POST(self) -> None:
        body = self._body()
        self.shelf.asked.append(("POST", self.path, body))
        kind = self.path.split("/")[2]
        if self.shelf.status != 200:
            self._say({"error": {"message": "no"}}, self.shelf.status)
        elif kind == "chat":
            self._say({"object": "chat.completion", "choices": []})
        elif b'"stream": true' in body:
            self._stream(self.shelf.make(kind, body))
        else:
            self._say({"object": kind, "id": self.shelf.make(kind, body)})

    def do_GET(self) -> None:
        self.shelf.asked.append(("GET", self.path, b""))
        path, _, query = self.path.partition("?")
        if path.count("/") == 2:
            self._list(path.split("/")[2], dict(urllib.parse.parse_qsl(query)))
            return
        name = self.path.split("/")[3]
        status = self.shelf.status
        if status == 200 and name not in self.shelf.things:
            status = 404
        self._say({"object": "thing", "id": name}, status)

    def _list(self, kind: str, asked: dict[str, str]) -> None:
        names = [name for name in self.shelf.things if name.startswith(kind)]
        at = names.index(asked["after"]) + 1 if "after" in asked else 0
        page = names[at:][: int(asked.get("limit", 20))]
        said = {
            "object": "list",
            "data": [{"id": name, "size": 1.50} for name in page],
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
            "has_more": at + len(page) < len(names),
        }
        self._say(said)

    def _say(self, said: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(said).encode()
        if said.get("object") == "list":
            data = self.shelf.raw or data
        self.send_response(status)
        for field, value in self.shelf.headers.items():
            self.send_header(field, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, name: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        first = {"type": "response.created", "response": {"id": name, "tools": []}}
        for event in (first, {"type": "response.completed"}):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


@contextlib.contextmanager
def shelf(name: str) -> Iterator[Shelf]:
    """Run one."""
    it = Shelf(name)
    handler = type("Handler", (_Handler,), {"shelf": it})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    it.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield it
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
