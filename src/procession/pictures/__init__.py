"""Pictures: of a process as a graph, and of a run as a timeline. Pure: from plain rows to text."""

from procession.pictures.account import SpeedUp
from procession.pictures.schedule import Busy, Lane, Span

__all__ = ["Busy", "Lane", "Span", "SpeedUp"]
