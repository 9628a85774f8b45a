"""What runs on the side of the worker."""
