"""How long `import ratekeeper` takes, and what it loads: `make bench-import`.

The figure is a cold interpreter with the import less one without, by turns, medians.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 21
MOST_MS = 40.0
STATEMENTS = (
    "import ratekeeper",
    "from ratekeeper import Limiter",
    "import ratekeeper; ratekeeper.http_client",
)


def _run_ms(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return (time.perf_counter() - start) * 1e3


def _third_party(statement: str) -> list[str]:
    show = "import json, sys; print(json.dumps(list(sys.modules)))"
    done = [
        subprocess.run(
            [sys.executable, "-c", f"{each}; {show}"], check=True, capture_output=True
        )
        for each in ("pass", statement)
    ]
    bare, loaded = (set(json.loads(one.stdout)) for one in done)
    tops = {name.partition(".")[0] for name in loaded - bare}
    ours = {"ratekeeper", *sys.stdlib_module_names}
    return sorted(top for top in tops - ours if not top.startswith("_sysconfigdata"))


def main() -> int:
    """Print a row for each way in; fails where the bare import is slow or heavy."""
    print(f"{'statement':<44} {'ms':>6}  third-party modules")
    failed = False
    for statement in STATEMENTS:
        pairs = [(_run_ms(statement), _run_ms("pass")) for _ in range(ROUNDS)]
        median = statistics.median(with_it - without for with_it, without in pairs)
        others = _third_party(statement)
        print(f"{statement:<44} {median:6.1f}  {', '.join(others) or 'none'}")
        if statement == STATEMENTS[0]:
            failed = median > MOST_MS or bool(others)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
