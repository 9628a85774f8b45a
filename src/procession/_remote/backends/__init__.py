"""Backends: what makes calls elsewhere, one file for each kind."""
