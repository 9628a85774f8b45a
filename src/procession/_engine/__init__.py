"""The ledger of a run, which decides, and the loops that drive it, which do what it says."""
