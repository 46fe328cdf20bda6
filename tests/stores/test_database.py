"""A store that cannot be used says why, and what to do about it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from ratekeeper.errors import ConfigError, StoreUnavailable
from ratekeeper.stores.database import Database, address_of, path_of

if TYPE_CHECKING:
    from pathlib import Path


def _complaint(path: Path) -> str:
    """Return what is said of a file that cannot be opened as a store."""
    with pytest.raises(StoreUnavailable) as caught:
        Database(path)
    return str(caught.value).removeprefix(f"the store {path} cannot be used ")


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    assert "(Is a directory): it is a folder: name a file in it" == _complaint(tmp_path)


def test_a_folder_that_is_not_there_is_named_as_such(tmp_path: Path) -> None:
    said = _complaint(tmp_path / "absent" / "x.db")

    assert said.startswith("(No such file or directory): its folder is not there: make")


def test_some_other_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of a database " * 100)
    said = _complaint(path)

    assert "(file is not a database): it is some other file: name another store" == said
    assert path.read_text().startswith("nothing of a database")


def test_a_file_that_another_program_holds_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with (
        contextlib.closing(Database(path)) as database,
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        database.be_patient(0)
        with (
            pytest.raises(StoreUnavailable, match="another program holds it: end that"),
            database.writing(),
        ):
            pass


def test_a_file_that_was_replaced_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with contextlib.closing(Database(path)) as database:
        path.rename(tmp_path / "old.db")
        path.touch()
        with (
            pytest.raises(
                StoreUnavailable, match="put the one before back, or restart"
            ),
            database.writing(),
        ):
            pass


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are others there")
def test_a_folder_without_leave_to_write_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid() == 0:  # for whom nothing is locked
        pytest.skip("root may write anywhere")

    said = _complaint(tmp_path / "locked" / "r.db")

    assert "(Permission denied): this user may not write there" == said


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sqlite://x.db", "'sqlite://x.db'"),
        ("sqlite:///", "'sqlite:///'"),
        ("redis://user:canary@host", "'redis'"),
    ],
)
def test_a_wrong_address_is_shown_as_far_as_no_password_is_in_it(
    address: str, shown: str
) -> None:
    with pytest.raises(ConfigError, match=f"^store {shown}: expected sqlite:///path"):
        path_of(address)


def test_an_address_leads_back_to_its_file(tmp_path: Path) -> None:
    assert tmp_path == path_of(address_of(tmp_path))
