"""What is checked and never run is not imported either."""

collect_ignore = ["accepted.py", "refused.py"]
