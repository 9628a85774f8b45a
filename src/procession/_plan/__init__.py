"""From what a process says to what a run does: stages and "waits for" edges. Pure."""
