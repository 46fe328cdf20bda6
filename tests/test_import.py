"""Importing the package is cheap and pulls in nothing third-party."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def _loaded(statement: str) -> set[str]:
    """Name the top-level modules a new interpreter has after a statement."""
    show = "print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    script = f"import json, sys; {statement}; {show}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_import_loads_only_the_standard_library() -> None:
    ours = _loaded("import ratekeeper; ratekeeper.Limiter('1 rpm').try_acquire()")

    # What a bare interpreter loads here is the site's business; zoneinfo reads the
    # build's own figures from a module named after the platform.
    standard = {*sys.stdlib_module_names, *_loaded("pass")}
    rest = {name for name in ours - standard if not name.startswith("_sysconfigdata")}
    assert {"ratekeeper"} == rest


def test_every_public_name_is_there() -> None:
    import ratekeeper

    assert ratekeeper.__all__ == sorted(ratekeeper.__all__)
    for name in ratekeeper.__all__:
        assert getattr(ratekeeper, name) is not None


@pytest.mark.parametrize(
    ("missing", "statement", "line"),
    [
        ("httpx", "import ratekeeper.client.legacy", "pip install httpx"),
        ("yaml", "load(pathlib.Path('a.yaml'))", "pip install pyyaml"),
    ],
)
def test_what_a_missing_extra_is_needed_for_says_how_to_get_it(
    missing: str, statement: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text("providers: {}")
    script = (
        f"import pathlib, sys; sys.modules[{missing!r}] = None; "
        f"from ratekeeper.config.load import load; {statement}"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert line in done.stderr.splitlines()[-1]
