"""The pure core: what tasks and runs are, and every decision about them. No I/O, no clock of its own."""
