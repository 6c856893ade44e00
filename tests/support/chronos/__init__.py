"""A checker in the manner of Jepsen's test of Chronos: planned fires, stamped executions, faults, one verdict."""
