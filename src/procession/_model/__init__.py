"""The data that all other packages share: tasks, options, handles, strategies, states, events and outcomes."""
