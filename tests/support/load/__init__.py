"""A load run with faults: `python -m tests.support.load --minutes 30`."""
