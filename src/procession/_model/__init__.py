"""What is said: tasks, their options and handles, strategies, states, events and outcomes. Decides nothing."""
