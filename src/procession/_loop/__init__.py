"""The engine for coroutines."""
