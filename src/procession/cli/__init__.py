"""The command line. Uses nothing of the library that any user of it could not."""
