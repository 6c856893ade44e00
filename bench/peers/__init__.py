"""Other systems, doing the same work on the same machine in the same run: each in an environment of its own.

`apps/` holds one small application per peer, `locks/` the versions it runs with, `catalog.py` how its users would run
it.
"""
