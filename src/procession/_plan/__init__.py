"""From a process to the plan of a run: stages, "waits for" edges, and fingerprints. Functions without side effects."""
