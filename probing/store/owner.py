"""How the process that owns a store answers the others.

It listens at a Unix socket in a folder of its own among the temporary files, which nobody but its user can enter, and
writes where that is, and a key, to a file beside the store that only its user can read. Both sides prove to each other
that they know the key before anything else is read. Whoever connects gets a thread of their own and a few seconds for
that, so that nobody keeps the others waiting: not one who says nothing, nor one who speaks another language.
"""

import contextlib
import json
import os
import pickle
import secrets
import socket
import stat
import struct
import tempfile
import threading
import time
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge, wait
from pathlib import Path
from typing import IO, Any

from probing.errors import StoreError
from probing.store.database import Database
from probing.store.files import is_private
from probing.store.protocol import QUERIES

PATIENCE = 15.0
"""Seconds to wait for an owner that is starting or ending, or that does not go on."""

_GREETING = 5.0
"""Seconds in which whoever connects proves to know the key."""

_STRANGERS = 128
"""How many may be at that at a time; who has been at it longest makes room for the next."""

_BREATH = 0.05
"""Seconds until the next try where no connection can be taken, as when this process has too many files open."""


class UnreachableError(StoreError):
    """A store whose owner does not answer, or is not there yet."""


def owner_file(store: Path) -> Path:
    """Where the owner of a store says how it is reached."""
    return store.with_name(store.name + ".owner")


def reach(path: Path) -> Connection:
    """A connection to the process that owns a store.

    Raises:
        UnreachableError: there is none, or it does not answer within `PATIENCE`.
    """
    try:
        address = _read(owner_file(path))
        if "port" in address:
            raise UnreachableError(f"An earlier version of this program holds the store {path}.", "Stop that first.")
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(PATIENCE)
            caller.connect(address["socket"])
            caller.setblocking(True)
            for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                caller.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", int(PATIENCE), int(PATIENCE % 1 * 1e6)))
            connection = Connection(caller.detach())
        try:
            answer_challenge(connection, bytes.fromhex(address["key"]))
            deliver_challenge(connection, bytes.fromhex(address["key"]))
        except BaseException:
            connection.close()
            raise
    except UnreachableError:
        raise
    except Exception as error:  # no owner yet, one that has gone, one that is stopped, or somebody else in its place
        raise UnreachableError(
            f"Another process holds the store {path} but does not answer.", "Stop it, then try again."
        ) from error
    return connection


def _read(file: Path) -> dict[str, Any]:
    """What an owner has written, if this user has: keys and addresses of others are not to be trusted."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as opened:
        status = os.fstat(opened.fileno())
        if not (stat.S_ISREG(status.st_mode) and is_private(status)):
            raise UnreachableError(
                f"The file {file}, which says where the store's owner answers, is not this user's alone.",
                "Run as the user who holds the store, or name another store.",
            )
        return dict(json.load(opened))


class Owner:
    """The database in this process, and the threads that answer others. `lock` is the right to open the file.

    Raises:
        StoreError: the store cannot be opened, or others could not reach it.
    """

    def __init__(self, path: Path, lock: IO[bytes]) -> None:
        self._lock = lock
        self._file = owner_file(path)
        self._key = secrets.token_bytes(32)
        self._open = True
        self._calls = 0
        self._gate = threading.Condition()
        self._strangers: dict[socket.socket, float] = {}  # until when each may be one, the soonest first
        self._threads: dict[threading.Thread, socket.socket] = {}
        try:
            _remove_remains(self._file)  # before anybody takes them for this owner's
        except OSError as error:
            raise _cannot_write(path, error) from error
        self.database = Database(path)
        try:
            self.database.batches.ingest()
            self._listener, self._place = _listen()
            try:
                self._tell()
            except BaseException:
                self._listener.close()
                _remove(self._place)
                raise
        except BaseException as error:
            self.database.close()
            if isinstance(error, OSError):
                raise _cannot_write(path, error) from error
            raise
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, daemon=True, name="store-owner")
        self._thread.start()

    def _tell(self) -> None:
        """Write where this process answers to a file that only its user can read."""
        part = self._file.with_name(self._file.name + ".part")
        part.unlink(missing_ok=True)
        address = {"pid": os.getpid(), "socket": str(self._place), "key": self._key.hex()}
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(part, flags, 0o600), "w") as opened:
                json.dump(address, opened)
            part.replace(self._file)
        finally:
            part.unlink(missing_ok=True)

    # -- whoever comes -------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            with self._gate:
                until = next(iter(self._strangers.values()), None)
            wait([self._listener, self._ended], None if until is None else max(0.0, until - time.monotonic()))
            if not self._open:
                return
            self._turn_away()
            try:
                caller, _ = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError:  # no more files may be opened, for now
                time.sleep(_BREATH)
                continue
            thread = threading.Thread(target=self._serve, args=(caller,), daemon=True, name="store-caller")
            with self._gate:
                self._strangers[caller] = time.monotonic() + _GREETING
                self._threads[thread] = caller
            try:
                thread.start()
            except RuntimeError:  # no more threads may be started, for now
                self._forget(thread, caller)
                time.sleep(_BREATH)

    def _turn_away(self) -> None:
        """Hang up on strangers whose time is over, and on the eldest where they are too many."""
        with self._gate:
            for stranger, until in list(self._strangers.items()):
                if until > time.monotonic() and len(self._strangers) < _STRANGERS:
                    break
                del self._strangers[stranger]
                _hang_up(stranger)

    def _forget(self, thread: threading.Thread, caller: socket.socket) -> None:
        with self._gate:
            self._strangers.pop(caller, None)
            self._threads.pop(thread, None)
            caller.close()

    def _serve(self, caller: socket.socket) -> None:
        """See who calls, and answer until they leave."""
        try:
            with Connection(os.dup(caller.fileno())) as connection:
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
                with self._gate:
                    self._strangers.pop(caller, None)
                while True:
                    question = connection.recv_bytes()
                    with self._gate:
                        if not self._open:
                            return  # the caller turns to the next owner
                        self._calls += 1
                    try:
                        reply = self._answer(question)
                    finally:
                        with self._gate:
                            self._calls -= 1
                            self._gate.notify_all()
                    connection.send_bytes(reply)
        except Exception:  # whoever it was has left, does not know the key, or says what nobody understands
            return
        finally:
            self._forget(threading.current_thread(), caller)

    def _answer(self, question: bytes) -> bytes:
        """What a query gives, or the error that it ends with."""
        try:
            part, name, args, kwargs = pickle.loads(question)
            if name not in QUERIES.get(part, ()):
                raise AttributeError(f"A store is not asked for '{part}.{name}' by others.")
            return pickle.dumps((True, getattr(getattr(self.database, part), name)(*args, **kwargs)))
        except Exception as error:
            return pickle.dumps((False, error))

    def close(self) -> None:
        """Finish the calls that have begun, take no more, and let go of the file."""
        self._file.unlink(missing_ok=True)
        with self._gate:
            self._open = False
            self._gate.wait_for(lambda: not self._calls, timeout=30)
        self._end.close()
        self._thread.join()
        for way in (socket.SHUT_RD, socket.SHUT_RDWR):  # the second for those who don't take their answer
            with self._gate:
                threads = list(self._threads)
                for caller in self._threads.values():
                    _hang_up(caller, way)
            until = time.monotonic() + 1
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
        self._ended.close()
        self._listener.close()
        _remove(self._place)
        self.database.close()
        self._lock.close()


def _listen() -> tuple[socket.socket, Path]:
    """A socket that listens in a new folder for this user only, and its path.

    Raises:
        OSError: it cannot be made.
    """
    try:
        return _listen_in(tempfile.gettempdir())
    except OSError:
        return _listen_in("/tmp")  # the path of a socket has 108 characters at most


def _listen_in(folder: str) -> tuple[socket.socket, Path]:
    place = Path(tempfile.mkdtemp(prefix="probing-", dir=folder)) / "socket"
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(place))
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        _remove(place)
        raise
    return listener, place


def _remove_remains(file: Path) -> None:
    """Remove what an owner that was killed has left: its file and its socket.

    Raises:
        OSError: the file cannot be removed.
    """
    with contextlib.suppress(OSError, UnreachableError, ValueError, KeyError, TypeError):
        place = Path(_read(file)["socket"])
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(place))  # to an owner that lives, if the file was copied with its store
            except ConnectionRefusedError:
                _remove(place)
    file.unlink(missing_ok=True)


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):
        place.unlink(missing_ok=True)
        place.parent.rmdir()


def _hang_up(caller: socket.socket, way: int = socket.SHUT_RDWR) -> None:
    with contextlib.suppress(OSError):  # who has left already
        caller.shutdown(way)


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Others could not reach the store {path} here: {error.strerror or error}.",
        "Free some disk space, or name another place with --store and TMPDIR.",
    )
