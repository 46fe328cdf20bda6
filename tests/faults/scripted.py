"""A provider over bare sockets: it keeps the bytes it got, and answers as a test says."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator

_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request as its bytes came."""

    head: bytes
    body: bytes

    @property
    def names(self) -> list[bytes]:
        """The names of its headers, in lower case."""
        lines = self.head.split(b"\r\n")[1:]
        return [line.partition(b":")[0].lower() for line in lines if line]


Script = Callable[[socket.socket, Asked], bool | None]  # True: another may come


class Scripted:
    """What came, and how often somebody connected or left amid an answer."""

    def __init__(self, script: Script) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.left = 0
        self.url = ""
        self._script = script
        self._open: set[socket.socket] = set()

    def accept(self, listener: socket.socket) -> None:
        """Take connections, each in a thread, until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=[sock], daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        self._open.add(sock)
        sock.settimeout(_TIMEOUT_S)
        try:
            with sock:
                while asked := _read(sock):
                    self.asked.append(asked)
                    if not self._script(sock, asked):
                        return
        except OSError:
            self.left += 1
        finally:
            self._open.discard(sock)

    def close(self) -> None:
        """End every connection."""
        for sock in tuple(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    """Run a provider that answers by a script."""
    provider = Scripted(script)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        provider.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread = threading.Thread(target=provider.accept, args=[listener], daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            provider.close()


def _read(sock: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(1 << 16)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    fields = {name.lower(): value.strip() for name, _, value in lines}
    if fields.get(b"transfer-encoding") == b"chunked":
        while not body.endswith(b"0\r\n\r\n"):
            body += sock.recv(1 << 16)
    else:
        while len(body) < int(fields.get(b"content-length", 0)):
            body += sock.recv(1 << 16)
    return Asked(head, body)
