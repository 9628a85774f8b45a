"""Files and folders of others are not trusted with a journal."""

import os
from pathlib import Path

import pytest

from journals import SIX, done, posix, root
from procession import JournalError
from procession.journal import Journal, database


@posix
def test_a_journal_is_its_owners_alone(tmp_path):
    """Whatever the umask, the file and those beside it can be read and written by the owner and nobody else."""
    umask = os.umask(0)
    try:
        with Journal(tmp_path / "runs.db") as journal:
            one = journal.begin("run", SIX)
            one.commit([done(one, 0, 1)])
            modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
            assert modes == {"runs.db": 0o600, "runs.db-wal": 0o600, "runs.db-shm": 0o600}
            one.close("completed")
    finally:
        os.umask(umask)


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
@pytest.mark.parametrize("companion", ["", "-wal", "-journal"])
def test_a_journal_that_others_can_write_to_is_refused(tmp_path, mode, companion):
    """They could have it run their code. What may only be read by others is fine."""
    file = tmp_path / "runs.db"
    with Journal(file) as journal:
        journal.begin("run", SIX).close("completed")
    beside = Path(f"{file}{companion}")
    if companion:
        beside.touch()
    beside.chmod(mode)
    with Journal(file) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="others can write to"):
                ask()
    beside.chmod(0o644)
    with Journal(file) as journal:
        assert [run.id for run in journal.runs()] == ["run"]


@root
@pytest.mark.parametrize("companion", ["", "-wal"])
def test_a_journal_of_another_user_is_refused(tmp_path, companion):
    """Whoever owns it can write to it."""
    file = tmp_path / "runs.db"
    with Journal(file) as journal:
        journal.begin("run", SIX).close("completed")
    beside = Path(f"{file}{companion}")
    beside.touch()
    os.chown(beside, 65534, 65534)
    with Journal(file) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="belongs to user 65534"):
                ask()


@posix
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o703])
@pytest.mark.parametrize("linked", [False, True])
def test_a_journal_beside_which_others_can_put_files_is_refused(tmp_path, mode, linked):
    """SQLite would read them; sticky or not, since they come and go. Whatever name leads there."""
    shared = tmp_path / "shared"
    shared.mkdir(0o700)
    with Journal(shared / "runs.db") as journal:
        journal.begin("run", SIX).close("completed")
    (tmp_path / "link.db").symlink_to(shared / "runs.db")
    where = tmp_path / "link.db" if linked else shared / "runs.db"
    shared.chmod(mode)
    with Journal(where) as journal:
        for ask in (lambda: journal.begin("run", SIX), journal.runs):
            with pytest.raises(JournalError, match="others can write to the folder .*shared'"):
                ask()
    with Journal(shared / "new.db") as journal, pytest.raises(JournalError, match="others can write to the folder"):
        journal.begin("run", SIX)
    assert [path.name for path in shared.iterdir()] == ["runs.db"]
    shared.chmod(0o755)
    with Journal(where) as journal:
        assert [run.id for run in journal.runs()] == ["run"]


@posix
@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o1777, False), (0o755, False)])
def test_a_folder_that_others_can_replace_is_refused(tmp_path, mode, refused):
    """One further up, that is; a sticky one keeps what is in it where it is."""
    folder = tmp_path / "up" / "own"
    folder.mkdir(parents=True)
    folder.parent.chmod(mode)
    with Journal(folder / "runs.db") as journal:
        if refused:
            with pytest.raises(JournalError, match="others can write to the folder .*up'"):
                journal.begin("run", SIX)
        else:
            journal.begin("run", SIX).close("completed")


@posix
def test_a_group_that_is_the_users_alone_is_nobody_else(tmp_path, monkeypatch):
    """Many systems make one for each user, and folders that it can write to."""
    import grp
    import pwd

    user = pwd.getpwuid(os.geteuid())
    os.chown(tmp_path, -1, user.pw_gid)
    tmp_path.chmod(0o770)
    for members, fine in ([], True), ([user.pw_name], True), ([user.pw_name, "other"], False):
        group = grp.struct_group((user.pw_name, "x", user.pw_gid, members))
        monkeypatch.setattr(grp, "getgrgid", lambda _, group=group: group)
        with Journal(tmp_path / "runs.db") as journal:
            if fine:
                journal.begin("run", SIX).close("completed")
            else:
                with pytest.raises(JournalError, match="others can write to the folder"):
                    journal.begin("run", SIX)


@root
def test_a_folder_of_another_user_is_refused(tmp_path):
    """Whoever owns it can put files there."""
    os.chown(tmp_path, 65534, 65534)
    with Journal(tmp_path / "runs.db") as journal, pytest.raises(JournalError, match="belongs to user 65534"):
        journal.begin("run", SIX)
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("companion", ["-wal", "-shm", "-journal"])
def test_files_beside_a_journal_that_is_reached_by_a_link_are_checked(tmp_path, companion):
    """Not those beside the link, which SQLite does not open."""
    (tmp_path / "real").mkdir()
    with Journal(tmp_path / "real" / "runs.db") as journal:
        journal.begin("run", SIX).close("completed")
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "runs.db")
    beside = tmp_path / "real" / f"runs.db{companion}"
    beside.touch()
    beside.chmod(0o666)
    with Journal(tmp_path / "link.db") as journal, pytest.raises(JournalError, match=f"others can write .*{companion}"):
        journal.begin("run", SIX)
    beside.unlink()
    beside.symlink_to(__file__)
    with Journal(tmp_path / "link.db") as journal, pytest.raises(JournalError, match=f"{companion}' is a link"):
        journal.begin("run", SIX)


@posix
def test_a_link_is_followed_to_the_journal_and_news_of_it(tmp_path):
    """By either name it is one journal; a link that leads nowhere makes none."""
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "runs.db", tmp_path / "link.db"
    link.symlink_to(file)
    with Journal(link) as journal, pytest.raises(JournalError, match="is a link that leads elsewhere, or nowhere"):
        journal.begin("run", SIX)
    with Journal(file) as journal:
        recorder = journal.begin("run", SIX)
        with Journal(link) as other:
            assert [run.id for run in other.runs()] == ["run"]
            assert other.database.last_commit() == journal.database.last_commit() != []
        recorder.close("completed")
    assert sorted(path.name for path in tmp_path.rglob("*db*")) == ["link.db", "runs.db"]


@posix
def test_a_file_planted_while_the_journal_is_opened_is_found(tmp_path, monkeypatch):
    """What appears beside the journal between the look and the opening is looked at afterwards."""
    file = tmp_path / "runs.db"
    with Journal(file) as journal:
        journal.begin("run", SIX).close("completed")
    connected = database.Database._connected

    def planting(self, **options):
        channel = connected(self, **options)
        wal = Path(f"{file}-wal")
        wal.touch()
        wal.chmod(0o666)
        return channel

    monkeypatch.setattr(database.Database, "_connected", planting)
    with Journal(file) as journal, pytest.raises(JournalError, match="others can write to .*-wal"):
        journal.begin("run", SIX)
