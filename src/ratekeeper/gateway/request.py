"""A request as it came: who asks, for what, with which model, and where it may go.

It reads the head and the body and refuses what may not pass; it takes nothing from any
limit and sends nothing.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ratekeeper.config.times import duration_us
from ratekeeper.core import units
from ratekeeper.errors import ConfigError
from ratekeeper.gateway import auth, intake, models, route, uploads
from ratekeeper.gateway.refused import Refused
from ratekeeper.gateway.reply import Fault
from ratekeeper.providers import form, shapes
from ratekeeper.providers.facts import Dialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ratekeeper.core.meter import Meter
    from ratekeeper.gateway.app import Gateway
    from ratekeeper.gateway.roster import Caller
    from ratekeeper.gateway.route import Route
    from ratekeeper.gateway.upstream import Upstream

_CHANGES = frozenset(["PATCH", "POST", "PUT"])
_JSON = b"application/json"
_FORM = b"multipart/"
_MOST_TARGETS = 1024  # remembered: what callers make up must not fill the memory
# Azure's: a model that a tool uses, and the one that answers.
_BESIDE = (b"x-ms-oai-image-generation-deployment", b"azureml-model-deployment")

_NO_JSON = (
    "the body is no JSON object that everybody reads alike: write it in UTF-8, without "
    "comments, nested less than some hundred times; files go in multipart/form-data"
)
NO_PATH = (
    "this gateway serves the OpenAI API under /v1, Anthropic's under /anthropic/v1 and "
    "/v1/messages, Gemini's under /gemini/v1beta, and /p/{provider}"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Destination:
    """Where a call may go: a provider, and the model's name there."""

    upstream: Upstream
    model: str


class Request:
    """What a caller asks of the gateway."""

    def __init__(
        self, gateway: Gateway, scope: Mapping[str, Any], receive: Any
    ) -> None:
        self.gateway = gateway
        self.method: str = scope["method"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._fields: dict[bytes, bytes] = dict(self.headers)
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.receive = receive
        self.arrived_us = gateway.now_us()
        self.dialect = Dialect.OPENAI
        self.kind = ""  # of its path
        self._caller: Caller | None = None  # once it is known
        self.route: Route  # where it goes, once that is known
        self.targets: list[Destination] = []  # first choice first
        self.body = intake.Body(gateway.held)
        # In its body, where that is JSON; not kept while it waits.
        self.said: dict[str, object] | None = None
        self.fields: list[tuple[str, bytes]] = []  # of its form, where one was read
        self.is_json = False
        self.model = ""  # that it asks for
        self.passes = False  # whether its body passes as it comes: sent once
        self.secret: str | None = None  # its client key

    @property
    def caller(self) -> Caller:
        """Who calls, once it has been identified."""
        assert self._caller is not None
        return self._caller

    def field(self, name: bytes) -> bytes:
        """Return a header of the request, b"" where there is none."""
        return self._fields.get(name, b"")

    def identify(self) -> None:
        """Find out who calls; raises `Refused` for a stranger."""
        try:
            secret = auth.credential(self.headers, self.query)
        except auth.TwoCredentials:
            raise Refused(
                Fault.BAD_REQUEST, "two different keys in one request"
            ) from None
        if secret is None and self.raw_path.startswith(uploads.PREFIX):
            secret = self.gateway.uploads.secret(self.query)
        self.secret = secret
        caller = self.who()
        if caller is None and secret is not None and self.gateway.hears_anew():
            caller = self.who()  # its key was made this moment
        is_anyone = caller is not None and caller is self.gateway.roster.anyone
        if is_anyone and auth.is_foreign(self._fields):
            raise Refused(
                Fault.FORBIDDEN, "a page of another site may not call without a key"
            )
        if is_anyone and auth.is_disguised(
            self.field(b"host"), self.gateway.listens_on
        ):
            raise Refused(
                Fault.FORBIDDEN,
                "without a key this gateway is called by an IP address or as localhost",
            )
        if caller is None:
            name, fault = "", Fault.UNKNOWN_KEY
            if secret is not None:
                roster = self.gateway.roster
                name, fault = roster.stranger(secret, self.arrived_us)
            raise Refused(
                fault,
                "the client key is missing, expired, revoked or not known here: ask "
                "whoever runs this gateway for one (ratekeeper keys create)",
                key=name,
            )
        self._caller = caller

    def who(self) -> Caller | None:
        """Return whom its client key stands for, None where it does so for nobody."""
        roster, secret = self.gateway.roster, self.secret
        caller = None if secret is None else roster.caller(secret, self.arrived_us)
        return roster.anyone if caller is None else caller

    async def take_in(self) -> bool:
        """Read the body where its words decide; True where it passes as it comes.

        What a model is asked is always read, whatever it says it is: else it would pass
        by every limit on tokens and money.
        """
        if self.method in {"GET", "HEAD", "DELETE"} and not self._has_body():
            return False
        kind = b""
        if self.route.family in route.TAKES_FILES:
            kind = self.field(b"content-type")
            if self._passes(kind.lower()):
                return True
        if self.field(b"content-encoding").lower() not in {b"", b"identity"}:
            # What cannot be read would pass by every limit.
            raise Refused(Fault.BAD_REQUEST, "send the body without content-encoding")
        await self.hold_body(self.gateway.roster.max_body)
        if kind.lower().startswith(_FORM):
            self._read_form(kind)
        else:
            self.read()
        return False

    def _passes(self, kind: bytes) -> bool:
        """Say whether a body is a file, or the form of one, that nobody has to read."""
        if kind.startswith(_FORM):
            has_model = self.route.family in route.USES_MODELS
            is_read = self.caller.is_restricted and has_model
            return not (is_read or self.route.family in route.READS_FORMS)
        # Google's, of any type; elsewhere nobody takes a file that is no form's.
        return self.route.family == "upload" and not kind.startswith(_JSON)

    async def hold_body(self, most: int) -> None:
        """Read the body to its end; raises `Refused` where it is above a bound."""
        length = self.field(b"content-length")
        announced = int(length) if length.isdigit() else None
        try:
            await self.body.read(self.receive, most, announced, self.caller.flow)
        except intake.BodyTooLarge:
            is_max = most == self.gateway.roster.max_body
            raise self.too_large() if is_max else _too_large(most) from None
        except intake.Crowded:
            raise Refused(
                Fault.UNAVAILABLE,
                "too many large requests are waiting: try again in a moment",
                retry_after_us=units.SECOND,
            ) from None

    def _read_form(self, kind: bytes) -> None:
        """Read a body that is a form."""
        try:
            self.fields = form.fields(self.body.data, kind)
            self.model = intake.model_in(self.fields)
        except form.Unclear:
            raise Refused(
                Fault.BAD_REQUEST,
                "the form could be read in two ways: send each field once, in "
                "multipart/form-data as HTTP libraries write it",
            ) from None

    def read(self) -> None:
        """Read a body of JSON, which alone is taken: what is not read passes no limit."""
        is_eval = (
            self.route.family == "evals"
        )  # what it reads is up to any of its names
        try:
            self.said = intake.decoded(self.body.data, each_once=is_eval)
        except intake.NoObject:
            if (
                self.route.family != "upload"
            ):  # parts of a file, whatever they are called
                raise Refused(Fault.BAD_REQUEST, _NO_JSON) from None
        except intake.Unclear:
            raise Refused(
                Fault.BAD_REQUEST, "a name stands twice in an object of the request"
            ) from None
        except intake.TooManyValues:
            raise Refused(
                Fault.BAD_REQUEST,
                f"the request holds more than {intake.MOST_VALUES:,} values, objects "
                "and lists counted four times: send several",
            ) from None
        self.is_json = self.said is not None
        self.model = shapes.model_of(self.said or {})

    def too_large(self) -> Refused:
        """Say that the body is above `max_body`."""
        return _too_large(self.gateway.roster.max_body, " (max_body)")

    def _has_body(self) -> bool:
        length = self.field(b"content-length")
        return length not in {b"", b"0"} or bool(self.field(b"transfer-encoding"))

    def find_targets(self) -> None:
        """Find where the call may go, first choice first."""
        roster = self.gateway.roster
        if self.route.is_native:  # there the path decides, whatever the body says
            self.model = route.model_in(self.route.path) or self.model
        asked = self.route, self.model, self.is_json
        targets = roster.targets.get(asked)
        if targets is None:
            targets = self._targets_of()
            if len(roster.targets) >= _MOST_TARGETS:
                roster.targets.clear()
            roster.targets[asked] = targets
        self.targets = targets

    def _targets_of(self) -> list[Destination]:
        roster, model = self.gateway.roster, self.model
        if self.route.provider:
            named = roster.upstreams.get(self.route.provider)
            if named is None or not named.accounts:
                raise Refused(
                    Fault.NOT_FOUND,
                    f"no provider {self.route.provider[:40]!r} is configured here: whoever "
                    "runs this gateway can add it to its config",
                )
            return [Destination(named, model)]
        listed = roster.fallbacks.get(model, ())
        pairs = [one.partition("/") for one in listed]
        targets = [Destination(roster.upstreams[name], to) for name, _, to in pairs]
        targets = [
            one
            for one in targets
            if self.route.dialect in one.upstream.dialects
            and (one.model == model or self.is_json)  # nobody renames a form's
        ]
        if targets:
            return targets
        able = self.able()
        if not able:
            raise Refused(
                Fault.NOT_FOUND,
                f"no provider that speaks {self.route.dialect}'s API is configured here",
            )
        meant = [one for one in able if one.is_for(model)]
        return [Destination((meant or able)[0], model)]

    def able(self) -> list[Upstream]:
        """Return the providers that a call may go to, whatever its model."""
        upstreams = self.gateway.roster.upstreams
        if self.route.provider:
            return [upstreams[self.route.provider]]
        return [one for one in upstreams.values() if one.speaks(self.route.dialect)]

    def check_model(self) -> None:
        """Raise `Refused` where the caller's key does not allow a model that it names."""
        model = self.model or route.model_in(self.route.path)
        # What is not printable does not even go into a file; longer ones were cut.
        if model and (not model.isprintable() or len(model) >= shapes.LONGEST_MODEL):
            raise Refused(Fault.BAD_REQUEST, "the request's model is no name")
        if self.caller.is_restricted:
            self._check_all(model)

    def _check_all(self, model: str) -> None:
        """Raise `Refused` where a key of some models only could have another one run."""
        said = self.said or {}
        if self.method in _CHANGES:
            if models.is_hidden(self.route):
                raise Refused(
                    Fault.FORBIDDEN,
                    "this key may use some models only, and which ones that runs is "
                    "not said in the request",
                )
            if models.is_needed(self.route) and not (model or models.decides(said)):
                raise Refused(Fault.BAD_REQUEST, "the request names no model")
        try:
            beside = [v.decode("latin-1") for n, v in self.headers if n in _BESIDE]
            for name in (model, *beside, *models.named(said)):
                asked = models.bare(name, self.route.dialect)
                if asked and not self.caller.may_use(asked):
                    raise Refused(
                        Fault.FORBIDDEN,
                        f"this key may not use the model {asked[:80]!r}: it is not "
                        "among its allow_models",
                    )
        except models.Ambiguous:
            # Which of two names counts is up to whoever reads them.
            raise Refused(
                Fault.BAD_REQUEST,
                "the request names two models in one object, or one that is no text",
            ) from None

    def patience_us(self) -> int:
        """Return how long the call may stand in line in all."""
        caller = self.caller
        said = self.field(b"x-ratekeeper-max-wait").decode("latin-1")
        if not said:
            return caller.max_wait_us
        try:
            asked = duration_us(said)
        except ConfigError as error:
            raise Refused(
                Fault.BAD_REQUEST, f"x-ratekeeper-max-wait: {error}"
            ) from None
        return min(asked, caller.longest_wait_us)

    def quota(self, *, refused: bool = False) -> list[tuple[bytes, bytes]]:
        """Return the headers that show the caller's limits."""
        caller = self.caller
        meters: list[Meter] = []
        for scope, key in caller.targets:
            row = scope.rows.get(key)
            if row is None:  # nothing has been asked of it yet
                return []
            meters += row
        if len(meters) != len(caller.quota):  # a reload has changed them meanwhile
            return []
        return caller.quota.write(
            meters, self.gateway.now_us(), self.dialect, refused=refused
        )


def _too_large(most: int, why: str = "") -> Refused:
    return Refused(Fault.TOO_LARGE, f"the request is larger than {most:,} bytes{why}")
