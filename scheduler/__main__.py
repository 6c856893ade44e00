"""`python -m scheduler` is `dts`."""

from scheduler.cli import main

main()
