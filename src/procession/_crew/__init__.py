"""Engine and crews for tasks that run in other threads, processes or machines."""
