"""Importing the package is cheap and pulls in nothing third-party."""

from __future__ import annotations

import json
import subprocess
import sys


def test_import_loads_only_the_standard_library() -> None:
    script = (
        "import sys, json; import ratekeeper; from ratekeeper import Limiter;"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))

    # The standard library, and what an editable install itself puts on the path.
    assert loaded - set(sys.stdlib_module_names) - {"ratekeeper"} <= {
        name for name in loaded if name.startswith(("_editable", "__", "_distutils"))
    }


def test_every_public_name_is_there() -> None:
    import ratekeeper

    assert ratekeeper.__all__ == sorted(ratekeeper.__all__)
    for name in ratekeeper.__all__:
        assert getattr(ratekeeper, name) is not None
