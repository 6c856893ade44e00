"""What a sceptic runs before choosing this system: `dts-bench`, one file per question in `bench/questions`.

Every figure is measured several times on the same machine, and beside a limit or a peer that is measured in the same
round, because absolute numbers say more about the machine than about the system: compare ratios.
"""
