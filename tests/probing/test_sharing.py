"""One store and several processes: strays, owners that are killed or stopped, and what is for its user only."""

import inspect
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.strays import STRAYS, connect, until_hung_up
from probing.errors import StoreError
from probing.graph import graph_of
from probing.store import Store, open_snapshot, open_store, sharing
from probing.store import owner as owning
from probing.store.files import try_lock
from probing.store.owner import owner_file, reach
from probing.store.protocol import PARTS, QUERIES
from probing.store.sharing import move, restore
from probing.store.spool import ScoreBatch
from tests.conftest import ROOT
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def owner(path: Path) -> Iterator[Store]:
    opened = open_store(path)
    yield opened
    opened.close()


@pytest.fixture
def caller(owner: Store) -> Iterator[Store]:
    """A second one, to which the lock is as closed as to another process."""
    opened = open_store(owner.path)
    yield opened
    opened.close()


@contextmanager
def _owned_by_another(path: Path, before: str = "") -> Iterator[subprocess.Popen]:
    program = (
        f"import sys\nfrom pathlib import Path\nfrom probing.store import open_store, owner\n"
        f"store = open_store(Path({str(path)!r}))\n{before}\nprint('open', flush=True)\nsys.stdin.read()\nstore.close()"
    )
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"open\n"
        yield process
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _threads(name: str = "store-") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def _place(path: Path) -> Path:
    return Path(json.loads(owner_file(path).read_text())["socket"])


def _impatient(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for module in (owning, sharing):
        monkeypatch.setattr(module, "PATIENCE", seconds)


# -- strays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("say", STRAYS.values(), ids=STRAYS)
def test_strays_keep_nobody_waiting(caller: Store, say: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owning, "_GREETING", 60.0)
    strays = [connect(caller.path) for _ in range(10)]
    for stray in strays:
        say(stray)
    started = time.monotonic()
    job = caller.queue.submit({"pair": "x"})
    reach(caller.path).close()
    assert time.monotonic() - started < 10
    assert caller.queue.job(job).status == "queued"
    for stray in strays:
        stray.close()


@pytest.mark.parametrize("say", STRAYS.values(), ids=STRAYS)
def test_strays_are_hung_up_on_and_leave_no_thread(
    caller: Store, say: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller.queue.jobs()
    before = len(_threads())
    monkeypatch.setattr(owning, "_GREETING", 0.3)
    strays = [connect(caller.path) for _ in range(10)]
    for stray in strays:
        say(stray)
    for stray in strays:
        until_hung_up(stray)  # which fails after 30 s
        stray.close()
    until(lambda: len(_threads()) == before, 10)
    assert caller.queue.jobs().empty


def test_a_stray_that_says_a_letter_at_a_time_is_hung_up_on_too(owner: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owning, "_GREETING", 0.5)
    stray = connect(owner.path)
    started = time.monotonic()
    with pytest.raises(ConnectionError):
        for letter in (b"\0", b"\0", b"\0", b"\xc8", *[b"x"] * 200):
            stray.sendall(letter)
            time.sleep(0.1)
    assert time.monotonic() - started < 10
    stray.close()


def test_a_crowd_of_strays_costs_a_bounded_number_of_threads(caller: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owning, "_GREETING", 60.0)
    monkeypatch.setattr(owning, "_STRANGERS", 20)
    strays = [connect(caller.path) for _ in range(100)]
    until_hung_up(strays[79])  # the last 20 may stay
    assert caller.queue.jobs().empty
    reach(caller.path).close()
    until(lambda: len(_threads("store-caller")) <= 21, 10)
    for stray in strays:
        stray.close()


def test_an_owner_that_may_open_no_more_files_goes_on_when_it_can(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = (
        "import os, resource\nowner._GREETING = 1.0\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) + 8, 4096))"
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 4096
    with _owned_by_another(path, few):
        strays = [connect(path) for _ in range(40)]
        store = open_store(path)
        assert store.queue.job(store.queue.submit({"pair": "x"})).status == "queued"
        for stray in strays:
            stray.close()
        store.close()


def test_one_who_knows_the_key_and_talks_nonsense_gets_an_error(caller: Store) -> None:
    with reach(caller.path) as connection:
        for nonsense in (b"", b"nonsense", b"\x80\x04N.", b"\x80\x04K\x01K\x02\x86."):
            connection.send_bytes(nonsense)
            worked, error = connection.recv()
            assert not worked
            assert isinstance(error, Exception)
    assert caller.queue.jobs().empty


# -- owners that come and go -------------------------------------------------------------------------------------------


def test_closing_is_quick_and_leaves_neither_thread_nor_file(path: Path) -> None:
    before = {*_threads()}
    store = open_store(path)
    folder = _place(path).parent
    assert folder.is_dir()
    strays = [connect(path) for _ in range(5)]
    callers = [reach(path) for _ in range(5)]
    until(lambda: len({*_threads("store-caller")} - before) == 10, 10)
    started = time.monotonic()
    store.close()
    assert time.monotonic() - started < 5
    assert {*_threads()} <= before
    assert not folder.exists()
    assert {p.name for p in path.parent.iterdir()} == {"store.duckdb", "store.duckdb.lock"}
    for left in (*strays, *callers):
        left.close()


def test_what_a_killed_owner_has_left_is_removed_by_the_next(path: Path) -> None:
    with _owned_by_another(path) as process:
        left = _place(path)
        process.kill()
        process.wait()
        assert left.exists()
        store = open_store(path)
        assert not left.parent.exists()
        assert _place(path).exists()
        store.close()


def test_a_copy_of_a_store_in_use_leaves_its_original_alone(caller: Store, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for beside in path.parent.glob("store.duckdb*"):
        if beside.is_file():
            shutil.copy(beside, copy)
    other = open_store(copy / path.name)
    job = other.queue.submit({"pair": "of the copy"})
    assert caller.queue.jobs().empty
    assert other.queue.job(job).status == "queued"
    other.close()
    reach(path).close()


def test_an_owner_that_is_stopped_is_said_to_be_after_the_promised_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _impatient(monkeypatch, 0.5)
    with _owned_by_another(path) as process:
        store = open_store(path)
        store.queue.jobs()
        process.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, 30)
        for call in (store.queue.jobs, lambda: open_store(path)):  # in the middle of things, and one who comes
            started = time.monotonic()
            with pytest.raises(StoreError, match=r"Another process holds the store .* but does not answer. Stop it"):
                call()
            assert time.monotonic() - started < 5
        process.send_signal(signal.SIGCONT)
        assert store.queue.jobs().empty
        store.close()


def test_a_call_may_take_longer_than_the_patience_with_an_owner_that_is_silent(
    owner: Store, caller: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _impatient(monkeypatch, 0.2)
    database = owner._owner.database
    numbers = []
    with database.file.writing:
        thread = threading.Thread(target=lambda: numbers.append(caller.queue.submit({"pair": "x"})))
        thread.start()
        thread.join(timeout=1.5)
        assert thread.is_alive()
    thread.join(timeout=30)
    assert numbers == list(owner.queue.jobs()["job_id"])


def test_an_owner_of_an_earlier_version_is_named_as_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _impatient(monkeypatch, 0.1)
    lock = try_lock(path.with_name(path.name + ".lock"))
    assert lock is not None
    owner_file(path).touch(mode=0o600)
    owner_file(path).write_text(json.dumps({"pid": 1, "port": 40000, "key": "00"}))
    with lock, pytest.raises(StoreError, match="An earlier version of this program holds the store"):
        open_store(path)
    store = open_store(path)  # it has gone, and what it left says nothing
    assert set(json.loads(owner_file(path).read_text())) == {"pid", "socket", "key"}
    store.close()


@pytest.mark.parametrize("where", ["store", "temporary files"])
def test_paths_may_be_longer_than_that_of_a_socket(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path.joinpath(*["a folder with a long name"] * 12)
    deep.mkdir(parents=True)
    if where == "temporary files":
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
    path = (deep if where == "store" else tmp_path) / "store.duckdb"
    owner, caller = open_store(path), open_store(path)
    assert caller.queue.submit({"pair": "x"}) == owner.queue.jobs()["job_id"][0]
    caller.close()
    owner.close()
    assert not list(deep.glob("probing-*"))


# -- what others may ask -----------------------------------------------------------------------------------------------


def test_the_protocols_are_what_the_parts_have_and_what_is_passed_on(owner: Store, caller: Store) -> None:
    database = owner._owner.database
    public = {name for name in vars(database) if not name.startswith("_")}
    assert public == {*QUERIES, "path", "read_only", "spool"}
    only_here = {"file": {"batches", "close", "frame", "path", "read_only", "rows", "transaction", "writing"}}
    for part, names in QUERIES.items():
        here, passed_on = getattr(database, part), getattr(caller, part)
        assert {n for n in dir(here) if not n.startswith("_")} == names | only_here.get(part, set()), part
        assert {n for n in dir(passed_on) if not n.startswith("_")} == names, part
        for name in names:
            declared = str(inspect.signature(getattr(PARTS[part], name)))  # two of jaxtyping's types are never equal
            for has in (here, passed_on):
                assert str(inspect.signature(getattr(type(has), name))) == declared, f"{part}.{name}"


def test_nothing_but_the_protocols_is_answered(caller: Store, owner: Store) -> None:
    database = owner._owner.database
    others = {(part, n) for part in QUERIES for n in dir(getattr(database, part)) if n not in QUERIES[part]}
    others |= {("spool", "put"), ("path", "unlink"), ("", "close"), ("__class__", "mro"), ("queue.file", "verify")}
    assert {("file", "close"), ("file", "rows"), ("queue", "_take_back"), ("runs", "__class__")} <= others
    assert ("queue", "verify") not in others  # which another part has
    with reach(caller.path) as connection:
        for part, name in sorted({*others, ("queue", "verify")}):
            connection.send((part, name, (), {}))
            worked, error = connection.recv()
            assert not worked
            assert str(error) == f"A store is not asked for '{part}.{name}' by others."
        connection.send(("queue", "jobs", (), {}))
        assert connection.recv()[0]
    for store in (owner, caller):
        with pytest.raises(AttributeError):
            store.queue.no_such_query  # noqa: B018


def test_a_store_says_truly_whether_it_is_only_read(owner: Store, caller: Store) -> None:
    assert owner.read_only is False
    assert caller.read_only is False
    snapshot = open_snapshot(caller.file.snapshot())
    assert snapshot.read_only is True
    snapshot.close()


# -- for this user only ------------------------------------------------------------------------------------------------


def _open_to_others(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.lstat().st_mode & 0o077]


def test_a_store_and_what_lies_beside_it_are_for_their_user_only(path: Path) -> None:
    umask = os.umask(0)
    try:
        store = open_store(path)
        graph = graph_of(2)
        store.runs.start("run", "model", "sha256:x", graph, 1, 1, {})
        scores = ScoreBatch("run", ("q",), np.ones(1, np.float32), np.ones((1, len(graph.edges)), np.float32))
        store.spool.put(scores)
        assert _open_to_others(path.parent) == []
        assert path.with_name(path.name + ".wal").stat().st_size
        assert list(store.spool.folder.iterdir())
        made = store.file.snapshot()  # beside it
        store.batches.ingest()
        store._owner.database.file._connection.cursor().execute("CHECKPOINT")  # which deletes the log
        assert not path.with_name(path.name + ".wal").exists()
        store.queue.submit({"pair": "x"})
        assert path.with_name(path.name + ".wal").stat().st_size
        moved = move(made, path.with_name("moved.duckdb"))
        assert _open_to_others(path.parent) == []
        folder = _place(path).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_ISSOCK(_place(path).stat().st_mode)
        store.close()
        moved.chmod(0o644)  # as a backup may come back
        restore(moved, path)
        moved.unlink()
        assert _open_to_others(path.parent) == []
    finally:
        os.umask(umask)


def test_a_store_that_is_there_keeps_its_mode(path: Path) -> None:
    open_store(path).close()
    path.chmod(0o640)
    store = open_store(path)
    store.queue.submit({"pair": "x"})
    store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_owner_writes_its_key_through_no_link(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (owner_file(path), path.with_name(path.name + ".owner.part")):
        name.symlink_to(victim)
    store = open_store(path)
    assert victim.read_text() == "mine"
    assert stat.S_ISREG(owner_file(path).lstat().st_mode)
    assert stat.S_IMODE(owner_file(path).lstat().st_mode) == 0o600
    store.close()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("how", ["readable by others", "another user's", "a link", "a pipe", "a folder"])
def test_an_address_that_another_user_could_have_written_is_not_trusted(
    how: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _impatient(monkeypatch, 0.2)
    lock = try_lock(path.with_name(path.name + ".lock"))
    assert lock is not None
    listener = socket.socket(socket.AF_UNIX)
    with tempfile.TemporaryDirectory() as short:
        listener.bind(f"{short}/socket")
        listener.listen()
        listener.settimeout(0.2)
        file = owner_file(path)
        written = tmp_path / "written" if how == "a link" else file
        if how == "a pipe":
            os.mkfifo(file, 0o600)
        elif how == "a folder":
            file.mkdir(mode=0o700)
        else:
            written.touch(mode=0o600)
            written.write_text(json.dumps({"pid": 1, "socket": f"{short}/socket", "key": "00"}))
        if how == "readable by others":
            file.chmod(0o604)
        elif how == "another user's":
            if os.geteuid() != 0:
                pytest.skip("only root may give a file away")
            os.chown(file, 12345, -1)
        elif how == "a link":
            file.symlink_to(written)
        with lock, pytest.raises(StoreError, match=r"not this user's alone|does not answer"):
            open_store(path)
        with pytest.raises(TimeoutError):
            listener.accept()
    listener.close()
