"""`dts-bench`, or `python -m bench`."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the bench, or say what to install for it."""
    if find_spec("psutil") is None or find_spec("matplotlib") is None:
        sys.exit("dts-bench: needs more packages: pip install 'distributed-task-scheduler[bench]'")
    from bench.cli import main as run  # noqa: PLC0415 - needs what was just looked for

    run()


if __name__ == "__main__":
    main()
