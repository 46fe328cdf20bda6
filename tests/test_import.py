"""Importing the package is cheap and pulls in nothing third-party."""

from __future__ import annotations

import json
import subprocess
import sys


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
