"""A provider of a few lines on 127.0.0.1 that answers with exactly the bytes it is told.

It reads whole requests, writes its script and can hang up in every way there is. It
notices when the client leaves.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from typing import Any, Self

_RESET = struct.pack("ii", 1, 0)
PATIENCE_S = 5.0


def http(
    status: int, body: bytes = b"", *headers: str, reason: str = "Whatever"
) -> bytes:
    """Write a whole answer."""
    lines = [f"HTTP/1.1 {status} {reason}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def completion(prompt: int = 8, output: int = 5) -> bytes:
    """Write the body of a chat completion with its usage."""
    usage = {"prompt_tokens": prompt, "completion_tokens": output}
    usage["total_tokens"] = prompt + output
    message = {"role": "assistant", "content": "All is well."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 1}
    answer |= {"model": "m", "choices": [choice], "usage": usage}
    return json.dumps(answer).encode()


def events(*values: Any, done: bool = True) -> list[bytes]:
    """Write chunks of a chat completion as server-sent events."""
    said = [f"data: {json.dumps(value)}\n\n".encode() for value in values]
    return [*said, b"data: [DONE]\n\n"] if done else said


def delta(text: str) -> dict[str, Any]:
    """Write a chunk of generated text."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**chunk, "choices": [choice]}


def usage(prompt: int, output: int) -> dict[str, Any]:
    """Write the last chunk of a stream, with its usage."""
    said = {"prompt_tokens": prompt, "completion_tokens": output}
    said["total_tokens"] = prompt + output
    return {**delta(""), "choices": [], "usage": said}


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def chunked(*parts: bytes, end: bool = True) -> list[bytes]:
    """Frame parts as HTTP chunks."""
    framed = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    return [*framed, b"0\r\n\r\n"] if end else framed


class Script:
    """What is written for one request: bytes and pauses, and how it ends.

    `end` is keep (wait for the next request), close, or reset. A pause ends early when
    the client leaves.
    """

    def __init__(self, *parts: bytes | float, end: str = "keep") -> None:
        self.parts = parts
        self.end = end


class Wire:
    """The server: scripts are taken in turn, the last one for ever."""

    def __init__(self, *scripts: Script | bytes) -> None:
        self._scripts = [x if isinstance(x, Script) else Script(x) for x in scripts]
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = threading.Event()  # a client hung up in the middle of an answer

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"http://{host}:{port}/v1"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                _hang_up(connection)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.append(connection)
                self.connections += 1
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            while (request := read_request(connection)) is not None:
                with self._lock:
                    self.requests.append(request)
                    at = min(len(self.requests), len(self._scripts)) - 1
                if not self._play(connection, self._scripts[at]):
                    break
        except OSError:
            self.left.set()
        finally:
            connection.close()

    def _play(self, connection: socket.socket, script: Script) -> bool:
        for part in script.parts:
            if isinstance(part, bytes):
                connection.sendall(part)
            else:
                connection.settimeout(part)
                try:
                    if not connection.recv(1, socket.MSG_PEEK):
                        self.left.set()
                        return False
                except TimeoutError:
                    pass
                connection.settimeout(None)
        if script.end == "reset":
            time.sleep(0.02)  # let what was written be read first
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        return script.end == "keep"


def read_request(connection: socket.socket) -> bytes | None:
    """Read one request; None once the client has nothing more to say."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body
    length = next(
        (int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            return None
        body += part
    return head + b"\r\n\r\n" + body


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def message(put: int = 8, output: int = 5) -> bytes:
    """Write the body of an Anthropic message with its usage."""
    said = {"type": "message", "id": "1", "role": "assistant", "model": "m"}
    content = [{"type": "text", "text": "All is well."}]
    used = {"input_tokens": put, "output_tokens": output}
    answer = {**said, "content": content, "usage": used, "stop_reason": "end_turn"}
    return json.dumps(answer).encode()


def message_events(*texts: str, put: int = 8, output: int = 5) -> list[bytes]:
    """Write an Anthropic stream: its usage begins with the input and ends in full."""
    start = json.loads(message(put, 1)) | {"content": [], "stop_reason": None}
    block = {"type": "text", "text": ""}
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
    ]
    values += [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        }
        for text in texts
    ]
    values += [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": output},
        },
        {"type": "message_stop"},
    ]
    return [
        f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()
        for value in values
    ]
