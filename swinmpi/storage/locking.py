"""One writer per file: an advisory lock, or a sign beside the file where there are no locks."""
import errno
import fcntl
import os
import socket
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

from swinmpi.errors import OutputError
from swinmpi.interruption import uninterrupted
from swinmpi.storage.files import Sink, as_output_error, remove, system_reason

BEAT_S, PATIENCE_S, RIVAL_S, LOOK_S = 2.0, 10.0, 1.0, 0.1


def open_locked(path: Path, create: bool = False) -> Sink | None:
    """`path`, open and under an advisory lock until it is closed; None when there is no such file.

    OutputError when another process holds the lock. On a file system without locks an `Owner` file
    stands for it.
    """
    while True:
        try:
            sink = Sink(os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666))
        except FileNotFoundError:
            if create:
                raise
            return None
        try:
            fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sink.close()
            raise_busy(path)
        except OSError:
            own(sink, path)
        if is_open_as(sink, path):
            return sink
        sink.close()  # it was renamed or removed between opening and locking: look again


@uninterrupted
def begin(path: Path, stack: ExitStack) -> Sink:
    """`path`, new or left by a killed run, open and locked until `stack` ends, and removed when the
    block of that fails: from its first instant on, so that Ctrl-C leaves nothing behind.

    OutputError as `open_locked`.
    """
    def remove_what_failed(kind, error: BaseException | None, trace) -> None:
        if error is not None:
            error.left = remove(path)

    sink = stack.enter_context(open_locked(path, create=True))
    stack.push(remove_what_failed)
    return sink


def check_unlocked(path: Path) -> None:
    """OutputError where `path` is there and another process holds it, or it cannot be written."""
    with as_output_error(path, "cannot write here ({reason})", "choose another --output",
                         reason=system_reason):
        sink = open_locked(path) if path.exists() else None
    if sink is not None:
        sink.close()


def own(sink: Sink, path: Path) -> None:
    """Put up a sign, until `sink` is closed, that `path` is in use, or OUT.partial it becomes."""
    sign = path.with_name(f"{path.name.removesuffix('.new')}.owner")
    try:
        sink.on_close = Owner(sign, sink).release
    except BlockingIOError as busy:
        sink.close()
        raise_busy(path, f" ({busy.strerror})")


def raise_busy(path: Path, by: str = "") -> None:
    """The OutputError of a file that another process holds."""
    raise OutputError(f"{path}: another run is writing it{by}; wait for that run, "
                      "or choose another --output")


def is_open_as(sink: Sink, path: Path) -> bool:
    """Whether `path` is the file that is open."""
    return path.exists() and os.path.samestat(os.fstat(sink.fileno()), os.stat(path))


def check_in_place(sink: Sink, path: Path) -> None:
    """OutputError unless `path` still is the file that is open: writing it would be in vain."""
    if not is_open_as(sink, path):
        raise OutputError(f"{path}: was removed, moved or replaced while this run was writing it; "
                          "put it back, or start again")


class Owner:
    """A sign that a file is in use, for file systems without locks.

    Such are NFS without a lock daemon and some mounts of Lustre. A thread keeps the file at `path`
    young until `release`; a killed run leaves it behind, growing old. Dates are only compared with
    themselves, so the clocks of nodes and server may differ. Where two runs find the same old sign
    at the same moment, one of them wins. `sink` fails from the moment when the sign is no longer
    ours.
    """

    def __init__(self, path: Path, sink: Sink):
        """BlockingIOError with the owner's name when there is one who is alive.

        Finding out that there is none takes `PATIENCE_S`. A file that cannot be made is another
        OSError.
        """
        self.path, self.sink = path, sink
        job = os.environ.get("SLURM_JOB_ID")
        self.name = (f"on {socket.gethostname()}, process {os.getpid()}"
                     f"{f', job {job}' if job else ''}\n{uuid.uuid4().hex}\n")
        self._ended = Event()
        if not self._created():
            self._take_over()
        self._beating = Thread(target=self._beat, daemon=True, name=f"owner of {path.name}")
        self._beating.start()

    def release(self) -> None:
        """Remove the sign, if it is still ours."""
        self._ended.set()
        self._beating.join()
        if read(self.path) == self.name:
            self.path.unlink(missing_ok=True)

    def _created(self) -> bool:
        try:
            with open(self.path, "x", encoding="utf-8") as file:
                file.write(self.name)
        except FileExistsError:
            return False
        return True

    def _take_over(self) -> None:
        """Put our sign in the place of one that nobody keeps young."""
        first = date(self.path)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            if date(self.path) != first:
                self._give_way()
        mine = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        mine.write_text(self.name, encoding="utf-8")
        os.replace(mine, self.path)
        time.sleep(RIVAL_S)
        if read(self.path) != self.name:
            self._give_way()

    def _give_way(self) -> None:
        owner = (read(self.path) or "it has just ended").splitlines()[0]
        raise BlockingIOError(errno.EAGAIN, owner)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            if read(self.path) != self.name:
                self.sink.failure = OSError(errno.EAGAIN, "another run has taken over")
                return
            with suppress(OSError):
                os.utime(self.path)


def date(path: Path) -> int | None:
    """When the file was last changed, by its server's clock; None when it is gone."""
    try:
        # Opening makes a network file system ask its server; a mere stat may be answered from
        # memory.
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
