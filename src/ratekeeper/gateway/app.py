"""The gateway as a raw ASGI app: health, and calls on their way.

It owns what all calls share: the store of limits, the ledger, the pool, the roster.
It is started and closed by whoever serves it. Making one opens its store's file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from typing import TYPE_CHECKING, Any

from ratekeeper.client.pool import Pool
from ratekeeper.config.addresses import host_and_port
from ratekeeper.config.model import ClientKey
from ratekeeper.core.backoff import RetryBudget
from ratekeeper.core.promises import Promises
from ratekeeper.errors import RatekeeperError
from ratekeeper.gateway.call import Call
from ratekeeper.gateway.desk import Desk
from ratekeeper.gateway.doorstep import Doorsteps
from ratekeeper.gateway.homes import Homes
from ratekeeper.gateway.intake import Held
from ratekeeper.gateway.keys import new_secret
from ratekeeper.gateway.keystore import KeyStore
from ratekeeper.gateway.ledger import Ledger
from ratekeeper.gateway.observer import Observer
from ratekeeper.gateway.roster import Roster
from ratekeeper.gateway.stays import Stays
from ratekeeper.gateway.uploads import Uploads
from ratekeeper.stores.database import Database, path_of
from ratekeeper.stores.journal import Journal
from ratekeeper.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ratekeeper.config.model import Config
    from ratekeeper.core.meter import Meter
    from ratekeeper.gateway.roster import Caller
    from ratekeeper.gateway.upstream import Account
    from ratekeeper.runtime.clock import Clock


_log = logging.getLogger("ratekeeper.gateway")

_AT_THE_START = ("listen", "store", "drain", "notice")  # what a reload cannot change
_MOST_PROMISING = 1000  # limits whose promises are remembered
_HEAR_US = 20_000  # the least between two looks for a key that nobody knows
_TEND_S = 0.5  # how soon a key that was made or revoked elsewhere is heard of


class Gateway:
    """What `ratekeeper serve` serves."""

    def __init__(
        self,
        config: Config,
        *,
        environ: Mapping[str, str] | None = None,
        observer: Callable[[Callable[[], int]], Observer] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._config = self._begun = config
        self._environ = os.environ if environ is None else environ
        self.listens_on = host_and_port(config.listen)[0]
        self.is_draining = False
        self.open_calls = 0
        self.budget = RetryBudget()
        self.desk = Desk(self)
        self.stays = Stays()
        self.uploads = Uploads()
        self._promises: dict[Meter, Promises] = {}
        self._teamless: dict[str, str] = {}  # keys without their team, as last told
        self.draw = random.Random()  # noqa: S311 - ids of requests, and back-offs
        path = path_of(config.store)
        self._database = Database(path)
        self._keys = KeyStore(self._database)
        has_written = bool(config.client_keys)
        self._hasher = self._keys.hasher(self._environ, has_written=has_written)
        self._seen = -1  # of the keys: what is read here may be older than that it says
        self._heard_us = 0
        self._clock = clock
        self._journal = Journal(self._database)
        self.store = MemoryStore(clock=clock, journal=self._journal)
        self.now_us = self.store.clock.now_us  # no other thread reads it
        self.doorsteps = Doorsteps(self.now_us)
        self.observer = Observer() if observer is None else observer(self.now_us)
        self.roster = self._compiled(config)
        self.roster.enforce()
        self._tell_of_teamless()
        self.held = Held(self.roster.max_held)
        self._parts = contextlib.AsyncExitStack()  # each is closed, whatever others do
        self._parts.callback(self._database.close)
        self._parts.callback(self._journal.close)
        self.pool: Pool
        self.ledger: Ledger
        self.homes: Homes

    def _compiled(self, config: Config) -> Roster:
        roster = Roster(
            config,
            store=self.store,
            hasher=self._hasher,
            records=self._keys.records(),
            revoked=self._keys.revoked(),
            environ=self._environ,
        )
        for name, variable in roster.off.items():
            _log.warning("fallbacks go without %s: %s is not set", name, variable)
        return roster

    def _rekey(self) -> None:
        self.roster.rekey(self._keys.records(), self._keys.revoked())

    def _tell_of_teamless(self) -> None:
        """Tell which client keys let nobody in for want of their team, each once."""
        teamless = self.roster.teamless
        for name, team in sorted(teamless.items() - self._teamless.items()):
            _log.error(
                "client key '%s' lets nobody in: its team '%s' is not in the config; add "
                "the team, or revoke the key",
                name,
                team,
            )
        self._teamless = teamless

    def _tell_of_change(self, config: Config) -> None:
        """Tell of words that a reload cannot heed, and of a door that it opens."""
        later = [
            name
            for name in _AT_THE_START
            if getattr(config, name) != getattr(self._begun, name)
        ]
        if later:
            _log.warning("%s: in force after a restart", ", ".join(later))
        if config.auth == "none" != self._config.auth:
            _log.warning("auth: none: callers need no client key any more")

    async def start(self) -> None:
        """Make ready to take calls, in the running loop."""
        loop, parts = asyncio.get_running_loop(), self._parts
        self.ledger = Ledger(self._database, self._journal, loop, clock=self._clock)
        parts.push_async_callback(self.ledger.close)
        self.homes = Homes(self._database, loop, self.now_us, written=self.ledger.grew)
        parts.callback(self.homes.close)
        self.pool = Pool()
        parts.push_async_callback(self.pool.close)
        parts.callback(self.observer.close)
        parts.callback(self.desk.close)
        parts.push_async_callback(_end, asyncio.create_task(self._tend()))

    async def close(self) -> None:
        """Let everything go; what was spent is on disk afterwards."""
        await self._parts.aclose()

    def reload(self, config: Config) -> None:
        """Put another config in force; a wrong one raises and changes nothing."""
        before, roster = self.roster, self._compiled(config)
        roster.enforce()
        roster.take_over(before)
        self._tell_of_change(config)
        self.roster, self._config = roster, config
        self.held.resize(roster.max_held)
        self.observer.reloaded()
        self._tell_of_teamless()
        for account in before.accounts:
            account.crowd.disperse(all_of_them=True)
        self.doorsteps.disperse()

    def is_ready(self) -> bool:
        """Say whether calls are taken."""
        return not self.is_draining

    def new_id(self) -> str:
        """Return the id of a request, as its answer and the log name it."""
        return f"rk_{self.draw.getrandbits(96):024x}"

    def first_key(self, name: str, *, simulated: bool) -> str | None:
        """Make the first client key and return its secret; None where there are some.

        That of a simulated gateway opens nothing that costs: it is known at every start.
        """
        if self._config.client_keys or self._config.auth == "none":
            return None
        secret = self._hasher.secret_of(name) if simulated else new_secret()
        digest, entries = self._hasher.digest(secret), self._keys.entries()
        if not entries:
            self._keys.create(ClientKey(name=name, hash=digest), self.now_us())
            self._rekey()
        elif digest not in {record.digest for record in self._keys.records()}:
            return None
        return secret

    def promised_us(self, meter: Meter, cost: int, wait_us: int, caller: Caller) -> int:
        """Return when a refused call is to come back, after those who go before it."""
        promises = self._promises.pop(meter, None) or Promises()
        self._promises[meter] = promises  # the last one used is the last one
        if len(self._promises) > _MOST_PROMISING:
            del self._promises[next(iter(self._promises))]
        return promises.next_us(
            meter,
            meter.weight(cost),
            wait_us,
            self.now_us(),
            flow=caller.flow,
            weight=caller.weight,
        )

    def tell_of(self, account: Account) -> None:
        """Tell of an account that has closed, or answers again, whom it concerns."""
        now, standing = self.now_us(), account.standing
        wait_us = account.wait_us(now)
        if wait_us:
            account.crowd.disperse(all_of_them=True)
        if all(standing is not one.standing for one in self.roster.accounts):
            return  # a call from before a reload; others are in its place, or nobody
        if wait_us and not standing.is_announced:
            self.observer.set_aside(account.name, account.why(now), wait_us)
            standing.is_announced = True
        elif standing.is_announced and not wait_us and standing.is_proved:
            self.observer.back(account.name)
            for other in self.roster.accounts:  # it may serve those who wait elsewhere
                other.crowd.disperse(all_of_them=False)
            standing.is_announced = False

    async def _tend(self) -> None:
        """Do what is due twice a second; what fails of it keeps nothing else from it."""
        due = {
            "client keys stay as they were": self._hear_of_keys,
            "accounts are not looked at": self._hear_of_accounts,
            "the observer does not do its part": self.observer.tick,
        }
        told: dict[str, str] = {}  # why each fails
        while True:
            await asyncio.sleep(_TEND_S)
            for what, do in due.items():
                try:
                    do()
                except Exception as error:  # noqa: BLE001 - whatever it is, there is a next time
                    is_ours = isinstance(error, RatekeeperError)
                    why = str(error) if is_ours else type(error).__name__
                    if told.get(what) != why:
                        _log.error("%s: %s", what, why)
                    told[what] = why
                else:
                    told.pop(what, None)

    def _hear_of_keys(self) -> None:
        """Take in the keys that others have made and revoked."""
        version = self._keys.version()
        if version != self._seen:
            self._rekey()
            self._tell_of_teamless()
            self._seen = version

    def hears_anew(self) -> bool:
        """Look for keys of this moment, for one that nobody knows; True: there are some.

        However many strangers call, it looks fifty times a second and no more.
        """
        now, before = self.now_us(), self._seen
        if now - self._heard_us < _HEAR_US:
            return False
        self._heard_us = now
        with contextlib.suppress(RatekeeperError):  # told where it is tended to
            self._hear_of_keys()
        return self._seen != before

    def _hear_of_accounts(self) -> None:
        """Tell of the accounts that are open again."""
        for account in self.roster.accounts:
            if account.standing.is_announced:
                self.tell_of(account)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http":
            return
        if scope["path"] in {"/healthz", "/readyz"}:
            await self._health(scope["path"], send)
            return
        call = Call(self, scope, receive, send)
        task = asyncio.current_task()
        assert task is not None
        wire = scope["ratekeeper.wire"]
        wire.on_gone = task.cancel
        self.open_calls += 1
        try:
            await call.run()
        except asyncio.CancelledError:
            if not wire.is_gone or task.uncancel():
                raise
        finally:
            wire.on_gone = None
            self.open_calls -= 1

    async def _health(self, path: str, send: Any) -> None:
        good = path == "/healthz" or self.is_ready()
        body = b'{"status": "ok"}' if good else b'{"status": "draining"}'
        await send(
            {
                "type": "http.response.start",
                "status": 200 if good else 503,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(body)).encode()),
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task, and return when it is over."""
    task.cancel()
    await asyncio.wait([task])
