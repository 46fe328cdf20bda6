"""A running gateway: its port, its signals, its config file, its end.

It knows when to begin, to load a config anew and to stop; it refuses to know what the
gateway does with a call. Whatever goes wrong while it runs, the config in force stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import logging
import queue
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Protocol

from ratekeeper.core.units import format_wait, micros
from ratekeeper.errors import ConfigError, RatekeeperError
from ratekeeper.gateway import unforeseen
from ratekeeper.gateway.listener import Bounds, Listener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping
    from pathlib import Path

    from ratekeeper.config.model import Config

    Message = MutableMapping[str, Any]

log = logging.getLogger("ratekeeper.gateway")

_BACKLOG = 2048  # connections that wait to be accepted
_SEND_BUFFER = 64 * 1024  # bytes the kernel may hold of an answer nobody reads
_FILES_BESIDE = 256  # descriptors that are no connections: the database, logs, spares
_FILES_WANTED = (65_536, 10_240)
_LEAST_CONNECTIONS = 64
_POLL_S = 1.0  # how often the config file is looked at
_LOOK_S = 0.05  # how often, while it drains, whether all is answered
_LAST_S = 2.0  # for calls that were cut to end their tasks
_WAYS_OUT = {
    errno.EADDRINUSE: "; name another with `listen:` or --listen, port 0 for a free one",
    errno.EACCES: "; ports below 1024 are root's, or need CAP_NET_BIND_SERVICE",
}
_YOUNG = 10_000  # objects made until garbage is looked for: those of some ten calls


class Served(Protocol):
    """What is run: an ASGI app that can be started, loaded anew and closed."""

    is_draining: bool

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        /,
    ) -> None:
        """Answer one call."""

    async def start(self) -> None:
        """Get ready, in the loop that will run it."""

    async def close(self) -> None:
        """Write down what is left to write, and let go of everything."""

    def reload(self, config: Config, /) -> None:
        """Go by another config, or raise `ConfigError` and change nothing."""


class Stop:
    """How a running gateway is told to end: gently, then at once."""

    def __init__(self) -> None:
        self.gently = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        """Drain; asked again, cut what is left."""
        if self.gently.is_set():
            self.at_once.set()
        self.gently.set()


def run(
    gateway: Served, *, ready: Callable[[str], None] | None = None, **options: Any
) -> None:
    """Serve until a signal says stop, on uvloop where it is installed.

    The process is the gateway's own: how often garbage is looked for is set for it, and
    what becomes of errors that nobody foresaw.
    """

    def begun(url: str) -> None:
        _leave_alone()
        if ready is not None:
            ready(url)

    unforeseen.of_process()
    _allow_files()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(gateway, ready=begun, **options))


def _leave_alone() -> None:
    """Have what is there for good never looked at again for garbage, the rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


async def serve(
    gateway: Served,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    drain_s: float = 600.0,
    notice_s: float = 0.0,
    bounds: Bounds | None = None,
    config_path: Path | None = None,
    load: Callable[[Path], Config] | None = None,
    ready: Callable[[str], None] | None = None,
    stop: Stop | None = None,
) -> None:
    """Serve until told to stop: by SIGTERM, SIGINT, or `stop`.

    Then the gateway says that it is not ready, `notice_s` later no connection is accepted,
    and what is still answered after `drain_s`, or at a second signal, is cut. The config
    is loaded anew at SIGHUP and when its file has changed. A port that cannot be had is
    a `ConfigError`; `ready` is called with the URL.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(unforeseen.of_loop)
    stop = stop or Stop()
    sock = _listen(host, port)
    with contextlib.closing(sock):
        watch = _Watch(gateway, config_path, load)
        await gateway.start()
        listener = Listener(gateway, loop, bounds or _bounds())
        listener.start()
        server = await loop.create_server(
            listener.protocol, sock=sock, backlog=_BACKLOG
        )
        try:
            with _signals(loop, stop, watch.look):
                if ready is not None:
                    ready(_url(host, sock))
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(watch.run())
                    await stop.gently.wait()
                    watching.cancel()
                gateway.is_draining = True
                _tell_of_end(listener.open_answers, drain_s)
                await _within(notice_s, stop.at_once)
                server.close()
                await _drain(listener, drain_s, stop.at_once)
        finally:
            server.close()
            listener.close()
            await gateway.close()


def _tell_of_end(left: int, drain_s: float) -> None:
    if not left:
        log.info("told to end, and no answer is open")
        return
    answers = (
        "1 answer is open and has" if left == 1 else f"{left} answers are open and have"
    )
    log.info(
        "told to end: %s up to %s; a second signal cuts what is left",
        answers,
        format_wait(micros(drain_s)),
    )


async def _drain(listener: Listener, drain_s: float, at_once: asyncio.Event) -> None:
    """Wait for the answers that are under way, then cut what is left."""
    listener.drain()
    await _until(lambda: at_once.is_set() or not listener.open, drain_s)
    left = listener.open_answers
    if left:
        log.warning("%d calls were not answered in time and are cut", left)
    listener.cut()
    await _until(lambda: not listener.tasks, _LAST_S)
    for task in tuple(listener.tasks):
        task.cancel()
    await asyncio.gather(*listener.tasks, return_exceptions=True)


async def _within(seconds: float, event: asyncio.Event) -> None:
    """Wait for an event, but no longer than that."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


async def _until(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait for a state that nobody announces, but no longer than that."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not is_so() and loop.time() < end:  # noqa: ASYNC110 - as said
        await asyncio.sleep(_LOOK_S)


class _Watch:
    """Loads a config anew when its file has changed and rests, or when told to."""

    def __init__(
        self,
        gateway: Served,
        path: Path | None,
        load: Callable[[Path], Config] | None,
    ) -> None:
        self._gateway = gateway
        self._path = path
        self._load = load
        self._loaded = None if path is None else _stamp(path)
        self._told = asyncio.Event()

    def look(self) -> None:
        """Load it now, changed or not."""
        self._told.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        path, load = self._path, self._load
        if path is None or load is None:
            return
        before = self._loaded
        while True:
            await _within(_POLL_S, self._told)
            stamp = _stamp(path)
            # An editor may still be writing: what changed must have rested for a look.
            changed = stamp not in {None, self._loaded} and stamp == before
            before = stamp
            if self._told.is_set() or changed:
                self._told.clear()
                self._loaded = stamp
                await self._reload(path, load)

    async def _reload(self, path: Path, load: Callable[[Path], Config]) -> None:
        try:
            self._gateway.reload(await asyncio.to_thread(load, path))
        except RatekeeperError as error:
            log.error("the config is not changed, because it is wrong:\n%s", error)  # noqa: TRY400
        except Exception as error:  # noqa: BLE001 - no config is worth a gateway's end
            # Not its message: that may quote the file.
            log.error("the config is not changed: %s", type(error).__name__)  # noqa: TRY400
        else:
            log.info("the config is loaded anew from %s", path)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # an editor that puts another in its place
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextlib.contextmanager
def _signals(
    loop: asyncio.AbstractEventLoop, stop: Stop, look: Callable[[], None]
) -> Iterator[None]:
    """Heed signals, where this thread is the one that gets them."""
    heeded = {signal.SIGTERM: stop.ask, signal.SIGINT: stop.ask}
    if hasattr(signal, "SIGHUP"):
        heeded[signal.SIGHUP] = look
    if threading.current_thread() is not threading.main_thread():
        heeded = {}
    for number, heed in heeded.items():
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, heed)
    try:
        yield
    finally:
        for number in heeded:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    try:
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        why = getattr(error, "strerror", None) or str(error)
        why += _WAYS_OUT.get(getattr(error, "errno", None) or 0, "")
        raise ConfigError(f"cannot listen on {host} port {port}: {why}") from error
    sock.listen(_BACKLOG)
    sock.setblocking(False)  # noqa: FBT003 - the socket module's own way
    return sock


def _url(host: str, sock: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{sock.getsockname()[1]}"


def _allow_files() -> None:
    """Raise the number of open files as far as the system lets us."""
    with contextlib.suppress(ImportError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for wanted in (hard, *_FILES_WANTED):  # a Mac names no bound, but has one
            if 0 <= wanted <= soft or soft == resource.RLIM_INFINITY:
                return
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                return


def _bounds() -> Bounds:
    """Take no more connections than there are files for them and their calls."""
    most = Bounds().most_connections
    with contextlib.suppress(ImportError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            most = max(_LEAST_CONNECTIONS, min(most, (soft - _FILES_BESIDE) // 2))
    return Bounds(most_connections=most)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


@contextlib.contextmanager
def serving(gateway: Served, **options: Any) -> Iterator[str]:
    """Serve from a thread with a loop of its own, on a free port; yields the URL.

    At the end every connection is cut.
    """
    started: queue.Queue[str | BaseException] = queue.Queue()
    ends: list[Callable[[], object]] = []

    async def main() -> None:
        stop = Stop()
        loop = asyncio.get_running_loop()
        ends.append(functools.partial(loop.call_soon_threadsafe, stop.ask))
        said = {"port": 0, "drain_s": 0.0, **options}
        await serve(gateway, ready=started.put, stop=stop, **said)

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(main())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            started.put(error)

    thread = threading.Thread(target=work, name="ratekeeper-gateway", daemon=True)
    thread.start()
    url = started.get()
    if isinstance(url, BaseException):
        thread.join()
        raise url
    try:
        yield url
    finally:
        ends[0]()
        thread.join()
    if not started.empty() and isinstance(failed := started.get(), BaseException):
        raise failed
