"""A config file that is made to be slow is refused at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ratekeeper import ConfigError
from ratekeeper.config import load

MOST_S = 2.0  # of CPU; what is quadratic takes a minute

SLOW = {
    "base-60.yaml": "a: 1" + ":1" * 400_000,
    "dots.toml": "a" + ".a" * 400_000 + " = 1",
    "table.toml": "[a" + " . a" * 200_000 + "]",
    "inline.toml": "x = 1\ny = {a" + ".a" * 400_000 + " = 1}",
}


@pytest.mark.parametrize("name", SLOW)
def test_a_value_or_name_without_end_is_refused_at_once(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text(SLOW[name])
    before = time.process_time()
    with pytest.raises(ConfigError, match=r"too (long|deeply)"):
        load.read(path)

    assert MOST_S > time.process_time() - before
