"""One store, several processes.

DuckDB lets a single process hold a file. The first process to come owns it: it keeps a lock, opens the file, and
answers the calls of the others over a local connection, whose address and key it writes to a file that only its user
can read. `open_store` hides the difference: it gives something with the methods of `Database`, wherever they run.
When the owner ends, or is killed, whichever process calls next takes its place.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import IO, Any, cast

from probing.errors import StoreError
from probing.pairs import DATA
from probing.store.database import Database
from probing.store.spool import Spool

_PATIENCE = 15.0
"""Seconds to wait for an owner that is starting or ending."""

_Gone = (EOFError, ConnectionError, BrokenPipeError)


def default_path() -> Path:
    """`PROBING_STORE`, or data/store.duckdb."""
    return Path(os.environ.get("PROBING_STORE") or DATA / "store.duckdb")


def open_store(path: Path | None = None) -> Database:
    """The store in `path`, made if need be, shared with whoever else has it open.

    Raises:
        StoreError: the file is not a store, is of a later version, or cannot be written.
    """
    shared = SharedStore((path or default_path()).absolute())
    shared.connect()
    return cast(Database, shared)


def try_lock(path: Path) -> IO[bytes] | None:
    """Lock a file, which is made if need be, until the returned handle is closed; None if another holds it.

    Raises:
        StoreError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("ab")
    except OSError as error:
        raise StoreError(
            f"Cannot write in {path.parent}: {error.strerror}.", "Name another place with --store or PROBING_STORE."
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


def open_snapshot(path: Path) -> Database:
    """A store that is only read, by any number of processes at once.

    Raises:
        StoreError: it is not there, is not a store, or is of another version.
    """
    if not path.exists():
        raise StoreError(f"There is no store {path}.", "Name one with PROBING_STORE.")
    return Database(path, read_only=True)


def move(source: Path, target: Path) -> Path:
    """Move a file into place, also from another file system, where it is copied first; returns the target.

    Raises:
        StoreError: there is no room, or no such folder.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.move(source, part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"Cannot write {target}: {error.strerror}.", "Free some space, or name another.") from error
    return target


def restore(snapshot: Path, path: Path) -> Path | None:
    """Put a copy of a snapshot in a store's place, and return where that store is now, if there was one.

    Raises:
        StoreError: the snapshot is no store or of a later version, the store is in use, or there is no room.
    """
    if not snapshot.exists():
        raise StoreError(f"There is no file {snapshot}.", "Name a snapshot.")
    lock = try_lock(path.with_name(path.name + ".lock"))
    if lock is None:
        raise StoreError(f"The store {path} is in use.", "Stop the dashboard and its worker first.")
    part = path.with_name(f".{path.name}.part")
    before = None
    with lock:
        try:
            shutil.copyfile(snapshot, part)
            with contextlib.closing(Database(part)) as restored:  # a store, and one that this program can read
                restored.verify()
            if path.exists():
                before = path.with_name(f"{path.name}.before-{time.time_ns() // 10**9}")
                _rename_with_log(path, before)
            part.replace(path)
        except OSError as error:
            raise StoreError(f"Cannot restore to {path}: {error.strerror}.", "Free some disk space.") from error
        except StoreError as error:
            raise StoreError(
                f"{snapshot} cannot be restored: {error.what}".replace(str(part), str(snapshot))
            ) from error
        finally:
            part.unlink(missing_ok=True)
    return before


def _rename_with_log(path: Path, target: Path) -> None:
    """Rename a store and what it has written ahead."""
    log = path.with_name(path.name + ".wal")
    path.replace(target)
    if log.exists():
        log.replace(target.with_name(target.name + ".wal"))


class _Owner:
    """The database in this process, and the thread that answers others."""

    def __init__(self, path: Path, lock: IO[bytes], address_file: Path) -> None:
        self._lock = lock
        self._address_file = address_file
        self.database = Database(path)
        self.database.ingest()
        key = secrets.token_bytes(32)
        self._listener = Listener(("127.0.0.1", 0), backlog=64, authkey=key)
        try:
            self._tell({"pid": os.getpid(), "port": self._listener.address[1], "key": key.hex()})
        except OSError as error:
            self._listener.close()
            self.database.close()
            raise StoreError(f"Cannot write beside {path}: {error.strerror}.", "Free some disk space.") from error
        self._open = True
        self._calls = 0
        self._gate = threading.Condition()
        self._thread = threading.Thread(target=self._accept, daemon=True, name="store-owner")
        self._thread.start()

    def _tell(self, address: dict[str, Any]) -> None:
        """Write where this process answers to a file that only its user can read."""
        part = self._address_file.with_suffix(".part")
        try:
            part.touch(mode=0o600)
            part.write_text(json.dumps(address))
            part.replace(self._address_file)
        finally:
            part.unlink(missing_ok=True)

    def _accept(self) -> None:
        while self._open:
            try:
                connection = self._listener.accept()
            except (*_Gone, AuthenticationError):
                continue  # a caller that left before it was answered, or a stranger
            except OSError:
                return  # the listener was closed
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        with connection:
            while True:
                try:
                    name, args, kwargs = connection.recv()
                except (*_Gone, OSError):
                    return
                with self._gate:
                    if not self._open:
                        return  # the caller turns to the next owner
                    self._calls += 1
                try:
                    reply = (True, _public(self.database, name)(*args, **kwargs))
                except Exception as error:
                    reply = (False, error)
                finally:
                    with self._gate:
                        self._calls -= 1
                        self._gate.notify_all()
                try:
                    connection.send(reply)
                except (*_Gone, OSError):
                    return

    def close(self) -> None:
        """Finish the calls that have begun, take no more, and let go of the file."""
        self._address_file.unlink(missing_ok=True)
        with self._gate:
            self._open = False
            self._gate.wait_for(lambda: not self._calls, timeout=30)
        with contextlib.suppress(OSError):  # a call of our own wakes the thread, which then sees that it should end
            socket.create_connection(self._listener.address, timeout=1).close()
        self._thread.join(timeout=1)
        self._listener.close()
        self.database.close()
        self._lock.close()


def _public(database: Database, name: str) -> Any:
    if name.startswith("_") or name == "close":
        raise AttributeError(name)
    return getattr(database, name)


class SharedStore:
    """Passes calls on to the database: directly in the process that owns it, else over a connection to that one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool = Spool(path)
        self._owner: _Owner | None = None
        self._becoming = threading.Lock()
        self._local = threading.local()

    def connect(self) -> None:
        """Own the store or reach its owner.

        Raises:
            StoreError: neither is possible.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._try_connect():
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Another process holds the store {self.path} but does not answer.", "Stop it, then try again."
                )
            time.sleep(0.05)

    def _try_connect(self) -> bool:
        address_file = self.path.with_name(self.path.name + ".owner")
        with self._becoming:
            if self._owner is not None:
                return True
            lock = try_lock(self.path.with_name(self.path.name + ".lock"))
            if lock is not None:
                try:
                    self._owner = _Owner(self.path, lock, address_file)
                except BaseException:
                    lock.close()
                    raise
                return True
        try:
            address = json.loads(address_file.read_text())
            self._local.connection = Client(("127.0.0.1", address["port"]), authkey=bytes.fromhex(address["key"]))
        except (OSError, ValueError, KeyError, EOFError, AuthenticationError):
            return False  # no owner yet, or one that has gone and whose port is now somebody else's
        return True

    def __getattr__(self, name: str) -> Any:
        """A method of the database."""
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            while True:
                if self._owner is not None:
                    return _public(self._owner.database, name)(*args, **kwargs)
                connection = getattr(self._local, "connection", None)
                if connection is None:
                    self.connect()
                    continue
                try:
                    connection.send((name, args, kwargs))
                    worked, result = connection.recv()
                except (*_Gone, OSError):
                    self._local.connection = None
                    continue
                if worked:
                    return result
                raise result

        return call

    def close(self) -> None:
        """Give the store up."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None
        if self._owner is not None:
            self._owner.close()
            self._owner = None
