"""A claim on a file: one process at a time, and none once that process has ended."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from ratekeeper.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path


_MOMENT_S = 0.05


class Claim:
    """Held from when it is made; the file beside the claimed one stays behind.

    Raises `ConfigError` where another process holds it.
    """

    def __init__(self, path: Path) -> None:
        beside = path.with_name(f"{path.name}.lock")
        try:
            self._file = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            msg = f"{beside} cannot be opened ({error}): may this user write there?"
            raise StoreUnavailable(msg) from error
        if not _locked(self._file) and not self._locked_after_all():
            self.release()
            msg = (
                f"another gateway is using {path}: stop it, or give this one a store "
                "of its own (store: sqlite:///other.db)"
            )
            raise ConfigError(msg)

    def _locked_after_all(self) -> bool:
        """Try once more: whoever asks `is_held` has it for a moment."""
        time.sleep(_MOMENT_S)
        return _locked(self._file)

    @staticmethod
    def is_held(path: Path) -> bool:
        """Say whether another process has claimed a file."""
        try:
            file = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR)
        except OSError:
            return False
        try:
            return not _locked(file)
        finally:
            os.close(file)

    def release(self) -> None:
        """Let others have it; a second time changes nothing."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1


def _locked(file: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
