"""From a CSV file into a SQLite database, with results passed from step to step.

    python examples/csv_to_sqlite.py [CSV] [DATABASE]

                     ┌──▶ months ──┐
    read ──▶ check ──┤             ├──▶ load ──▶ report
                     └──▶ kinds ───┘

Every arrow is a handle passed as an argument. The process is parallel, so whatever does not wait runs at once: the
two summaries do. Nothing is written before everything that is to be written is there.
"""

import csv
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from procession import Process

DATA = Path(__file__).parent / "data" / "seattle-weather.csv"


class Day(NamedTuple):
    """One row, with each field as what it is."""

    date: str
    rain_mm: float
    high_c: float
    low_c: float
    wind_m_s: float
    weather: str


class Month(NamedTuple):
    """What the days of one month come to."""

    month: str
    rain_mm: float
    mean_high_c: float


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check(rows: list[dict[str, str]]) -> list[Day]:
    """Return the rows as days; raise `ValueError` with the line of the first that is none."""
    days: list[Day] = []
    for line, row in enumerate(rows, start=2):
        try:
            rain, high, low, wind = (float(row[field]) for field in ("precipitation", "temp_max", "temp_min", "wind"))
            days.append(Day(row["date"].replace("/", "-"), rain, high, low, wind, row["weather"]))
        except (KeyError, ValueError) as error:
            raise ValueError(f"line {line} is no day: {row}") from error
    return days


def by_month(days: list[Day]) -> list[Month]:
    """Return rain and mean high of each month, in order of time."""
    months: dict[str, list[Day]] = {}
    for day in days:
        months.setdefault(day.date[:7], []).append(day)
    return [
        Month(month, round(sum(day.rain_mm for day in inside), 1), round(fmean(day.high_c for day in inside), 1))
        for month, inside in sorted(months.items())
    ]


def by_kind(days: list[Day]) -> list[tuple[str, int]]:
    """Return how many days there were of each kind of weather."""
    return Counter(day.weather for day in days).most_common()


def load(database: Path, days: list[Day], months: list[Month], kinds: list[tuple[str, int]]) -> Path:
    """Write the tables in one transaction, in place of those that are there; return the database."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, columns in (
            ("day", "date TEXT PRIMARY KEY, rain_mm REAL, high_c REAL, low_c REAL, wind_m_s REAL, weather TEXT"),
            ("month", "month TEXT PRIMARY KEY, rain_mm REAL, mean_high_c REAL"),
            ("kind", "weather TEXT PRIMARY KEY, days INTEGER"),
        ):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
            connection.execute(f"CREATE TABLE {table} ({columns})")
        connection.executemany("INSERT INTO day VALUES (?, ?, ?, ?, ?, ?)", days)
        connection.executemany("INSERT INTO month VALUES (?, ?, ?)", months)
        connection.executemany("INSERT INTO kind VALUES (?, ?)", kinds)
    return database


def report(database: Path) -> str:
    """Return what the database has to say."""
    with closing(sqlite3.connect(database)) as connection:
        (days,) = connection.execute("SELECT count(*) FROM day").fetchone()
        month, rain = connection.execute("SELECT month, rain_mm FROM month ORDER BY rain_mm DESC LIMIT 1").fetchone()
        kinds = connection.execute("SELECT weather, days FROM kind ORDER BY days DESC").fetchall()
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
    return f"{days:,} days in {database}: {told}; the wettest month was {month} with {rain} mm"


def build(source: Path = DATA, database: Path = Path("weather.db")) -> Process:
    """Return the process."""
    process = Process("csv_to_sqlite", strategy="parallel")
    rows = process.task(read, source)
    days = process.task(check, rows)
    months = process.task(by_month, days)
    kinds = process.task(by_kind, days)
    loaded = process.task(load, database, days, months, kinds)
    process.task(report, loaded)
    return process


def main() -> None:
    """Run the steps and print the last one's result."""
    process = build(*map(Path, sys.argv[1:3]))
    print(process.execute()[-1])
    run = process.last_run
    assert run is not None
    print(run.summary())


if __name__ == "__main__":
    main()
