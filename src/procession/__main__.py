"""`python -m procession` is the command `procession`."""

from procession.cli.main import console

console()
