"""What travels between a coordinator and the workers, and how it is written."""
