"""A model of the system that can be searched: seeded histories of claim, lease, term and finish on a virtual clock.

`database.py` is PostgreSQL as the statements in `scheduler/store/sql` use it, `world.py` the clock and the network,
`machine.py` and `leader.py` the processes, which take every decision by the functions of `scheduler.domain` and reap by
`scheduler.store.reaping` itself, `history.py` what goes wrong and what is checked at every step.
`python -m tests.model --help` searches by hand.
"""
