"""Pictures: of a process as a graph, and of a run as a timeline. Pure: from plain rows to text."""
