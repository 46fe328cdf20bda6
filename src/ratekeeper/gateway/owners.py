"""Whose what a request refers to is: the call goes where that lives, and for its owner.

What is another owner's is refused exactly as what is not there, and so is not told of.
Where several owners share accounts, what would reach things of others by no id of
theirs is refused as well.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ratekeeper.core.units import SECOND
from ratekeeper.errors import StoreUnavailable
from ratekeeper.gateway import homes, ids, intake, uploads
from ratekeeper.gateway.refused import Refused
from ratekeeper.gateway.reply import Fault
from ratekeeper.gateway.request import Destination, Request
from ratekeeper.gateway.sight import may_name, sight_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.route import Route
    from ratekeeper.gateway.sight import Sight
    from ratekeeper.gateway.upstream import Account

_LOOKED_UP = 200  # ids in one turn of the loop: some milliseconds

# In nobody's words: whose it is, is not told.
_NOT_THERE = "the request refers to something that does not exist here"


class Owned(Request):
    """A request, and whose what it refers to is."""

    def __init__(
        self, gateway: Gateway, scope: Mapping[str, Any], receive: Any
    ) -> None:
        super().__init__(gateway, scope, receive)
        self.sight: Sight | None = None  # where its answer may name new ids
        self.lists: Route | None = None  # whose answer lists what any caller made
        self.refers_to: list[str] = []  # ids, which may live in one account
        self._lived: dict[str, tuple[homes.Home, ...]] = {}  # where each of them does
        self.home: Account | None = None  # the account in which they do

    def find_home(self) -> None:
        """Leave of where it may go the account in which lives what it refers to.

        Raises `Refused` for what is another owner's.
        """
        found, said, roster = self.route, self.said or {}, self.gateway.roster
        name = None
        is_used = not self.gateway.homes.is_empty  # else all just chat
        if is_used or may_name(found, self.method, said):
            self._refer()
            name = self._where()
        is_own = name is not None and self._is_own(name.partition("/")[0])
        if roster.is_shared:
            self._check_shared(is_own=is_own)
        if (is_used or roster.hides_unowned) and ids.lists(found, self.method):
            self.lists = found
        self.sight = sight_of(found, self.method, said, self.refers_to, is_own=is_own)
        self._stay_at(name)

    def keep_home(self) -> None:
        """Leave of where it may go after a reload what was left of it before."""
        name = self._where()
        if name is None and self.home is not None:  # it was of a list's first page
            name = self.home.name
        self._stay_at(name)

    def _stay_at(self, name: str | None) -> None:
        """Go to this account alone, where there is one."""
        if name is None:
            return
        home = self.gateway.roster.upstreams.get(name.partition("/")[0])
        accounts = () if home is None else home.accounts
        self.home = next((one for one in accounts if one.name == name), None)
        if home is None or self.home is None:  # the config has it no more
            return
        there = [one for one in self.targets if one.upstream is home]
        self.targets = there or [Destination(home, self.model)]

    def _refer(self) -> None:
        """Find what the request refers to."""
        try:
            said = intake.as_json(self.fields) if self.fields else self.body.data
            self.refers_to = ids.referred(self.route, said)
        except ids.TooMany as error:
            raise Refused(Fault.BAD_REQUEST, f"the request refers {error}") from None
        if uploads.begins(self.raw_path):
            self.refers_to += uploads.ids_in(self.query)
        file = ids.source_of(self.route, self.said or {}).get("id")
        if isinstance(file, str):
            self.refers_to.append(ids.normal(file))

    def _where(self) -> str | None:
        """Return the account in which lives what the request refers to."""
        if not self.refers_to:
            return None
        where = [one.name for one in self.able()]
        known = self.gateway.homes
        try:
            self._lived = {one: known.find(one) for one in self.refers_to}
            name = homes.home_of(self._lived.values(), self.caller.owner, where)
            if name is not None:
                known.used(self.refers_to, name)
        except homes.Foreign:
            raise Refused(Fault.NOT_FOUND, _NOT_THERE) from None
        except homes.Apart:
            raise Refused(
                Fault.BAD_REQUEST,
                "the request refers to things that were made in different accounts of "
                "the provider: make them anew, one after another",
            ) from None
        except StoreUnavailable as error:
            # Not its message: where the store is concerns nobody but the operator.
            raise Refused(
                Fault.UNAVAILABLE,
                "the gateway cannot look up where that was made",
                retry_after_us=SECOND,
            ) from error
        return name

    def _is_own(self, provider: str) -> bool:
        """Say whether the call is about what is its caller's: its path's last id."""
        *_, last = ("", *ids.in_path(self.route))
        lives = self._lived.get(last, ())
        return bool(homes.is_owned(lives, self.caller.owner, provider))

    def _check_shared(self, *, is_own: bool) -> None:
        """Raise `Refused` for what would reach things of others without their ids."""
        may_change = is_own or not self.gateway.roster.hides_unowned
        if ids.changes_models(self.route, self.method) and not may_change:
            raise Refused(
                Fault.FORBIDDEN,
                "whose this model is, is not known here: only what was trained through "
                "this gateway may be changed",
            )
        if ids.reads_all(self.route, self.said or {}):
            raise Refused(
                Fault.FORBIDDEN,
                "what calls have stored is read for none of those who share an account: "
                "give an eval's run its data, or a file",
            )

    async def told_apart(
        self, names: Iterable[str], upstream: str
    ) -> tuple[set[str], set[str]]:
        """Return which of some ids are the caller's there, and which it is not to see."""
        known, own, hidden = self.gateway.homes, set(), set()
        hides_unowned = self.gateway.roster.hides_unowned
        for at, name in enumerate(names, 1):
            if at % _LOOKED_UP == 0:
                await asyncio.sleep(0)  # others have the loop meanwhile
            is_own = homes.is_owned(known.find(name), self.caller.owner, upstream)
            if is_own:
                own.add(name)
            elif is_own is False or (hides_unowned and not ids.is_word(name)):
                hidden.add(name)
        return own, hidden
