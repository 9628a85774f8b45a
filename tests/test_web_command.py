"""The command that serves the page."""

import re
import signal
import socket
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest

from web_pages import _nothing_broken, numbers, path


class Served:
    """`procession ui` in a process of its own."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "procession", "ui", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said, self.port = "", None
        for line in self.process.stdout:
            self.said += line
            if found := re.search(r":(\d+)/\?key=(\S+) ", line):
                self.port, self.key = int(found[1]), found[2]
                break

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def get(self, path):
        request = Request(f"http://127.0.0.1:{self.port}{path}", headers={"cookie": self.cookie})
        with urlopen(request, timeout=30) as answer:
            return answer.read().decode()

    @property
    def cookie(self):
        return f"procession-{self.port}={self.key}"

    def stream(self, path):
        stream = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        host = f"localhost:{self.port}"
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {self.cookie}\r\n\r\n".encode())
        return stream


def test_the_command_serves_tells_news_and_ends_with_streams_open(path):
    """From an empty place to the first run, over real sockets; Ctrl-C ends it at once."""
    with Served("--journal", path) as served:
        assert "There is nothing at" in served.said
        assert "http://127.0.0.1:" in served.said
        idle = [served.stream("/events?since=x") for _ in range(20)]  # nobody ever reads from these
        with served.stream("/events?since=x") as stream, stream.makefile("rb") as lines:
            while not lines.readline().startswith(b"data: JournalError"):
                pass
            numbers(1).execute(journal=path, run_id="the-first")
            while not (line := lines.readline()).startswith(b"data:") or b"Error" in line:
                pass
        assert "the-first" in served.get("/")
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(30) == 0
        assert served.process.stderr.read() == ""  # which would say that streams had to be cut off
        for stream in idle:
            stream.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--journal", "{folder}/other"], "is not a database"),
        (["--journal", "{folder}/runs.db", "--host", "203.0.113.9"], "cannot listen on 203.0.113.9"),
        (["--journal", "{folder}/runs.db", "--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
    ],
)
def test_the_command_says_plainly_what_it_cannot_do(tmp_path, arguments, said):
    """A foreign file, an address that is not here, a port that cannot be: exit status 1, and no traceback."""
    (tmp_path / "other").write_text("no database at all, but more than sixteen bytes")
    (tmp_path / "other").chmod(0o600)
    with Served(*(argument.format(folder=tmp_path) for argument in arguments)) as served:
        assert served.process.wait(30) == 1
        error = served.process.stderr.read()
    assert said in error
    assert "Traceback" not in error


def test_whoever_opens_the_page_to_others_is_told_so(path):
    """Beyond this machine the key can be overheard, and the command says what that means."""
    with Served("--journal", path, "--host", "0.0.0.0") as served:
        assert "Everyone who has this address sees, cancels and answers the runs; and it travels" in served.said


def test_each_start_has_a_key_of_its_own_that_nobody_can_guess(path):
    """What one has seen in a terminal last week opens nothing today."""
    keys = set()
    for _ in range(2):
        with Served("--journal", path) as served:
            keys.add(served.key)
    assert len(keys) == 2
    assert all(len(key) >= 43 for key in keys)
