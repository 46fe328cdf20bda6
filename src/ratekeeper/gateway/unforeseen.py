"""What nobody foresaw: told by its kind and place, and never in its own words.

Those may quote a key, a prompt or a body, as may the arguments that an event loop names
beside them. A process that crashes leaves no image of its memory, where all of them are.
It knows nothing of calls.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

_log = logging.getLogger("ratekeeper.gateway")


def tell(what: str, kind: type[BaseException], place: TracebackType | None) -> None:
    """Log that something failed, with what, and where."""
    where = "".join(traceback.format_tb(place))
    _log.error("%s failed with %s\n%s", what, kind.__name__, where)


def of_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of an error that came to the loop; what it says of itself names arguments."""
    del loop
    error = context.get("exception")
    if error is None:
        _log.error("the event loop says: %s", context["message"])
    else:
        tell("a callback or task", type(error), error.__traceback__)


def of_process() -> None:
    """Have this process tell of its errors so, and leave nothing behind in a crash."""
    sys.unraisablehook = _unraisable
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _unraisable(said: sys.UnraisableHookArgs) -> None:
    tell("an object's end", said.exc_type, said.exc_traceback)
