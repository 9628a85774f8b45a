"""What several test files need."""

import pytest

from postgres import Server, Unavailable


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of the tests' own."""
    try:
        server = Server().__enter__()
    except Unavailable as error:
        pytest.skip(str(error))
    yield server
    server.__exit__()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """An empty place for a journal, of each kind that lasts."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    return request.getfixturevalue("postgres").new_database()
