"""Engine and backends for tasks that run in other threads, processes or machines."""
