"""Observers of runs: log, progress display, OpenTelemetry, and those of users. None of them changes a run."""
