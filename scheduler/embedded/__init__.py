"""PostgreSQL and Valkey as children of `dts up`: from wheels, else from the system; on unix sockets only."""
