"""A sign that a file is in use, for file systems without locks (NFS without a lock daemon, some Lustre mounts)."""
import errno
import os
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from swinmpi.storage.sink import Sink

BEAT_S, PATIENCE_S, RIVAL_S, LOOK_S = 2.0, 10.0, 1.0, 0.1


class Owner:
    """The file at `path`, kept young by a thread until `release`; a killed run leaves it behind, growing old.

    Dates are only compared with themselves, so the clocks of nodes and server may differ. Where two runs find the same old
    sign at the same moment, one of them wins. `sink` fails from the moment when the sign is no longer ours.
    """

    def __init__(self, path: Path, sink: Sink):
        """BlockingIOError with the name of the owner when there is one who is alive; finding out that there is none takes
        `PATIENCE_S`, and a file that cannot be made is another OSError."""
        self.path, self.sink = path, sink
        job = os.environ.get("SLURM_JOB_ID")
        self.name = f"on {socket.gethostname()}, process {os.getpid()}{f', job {job}' if job else ''}\n{uuid.uuid4().hex}\n"
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
        raise BlockingIOError(errno.EAGAIN, (read(self.path) or "it has just ended").splitlines()[0])

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
        # Opening makes a network file system ask its server, where a mere stat may be answered from memory.
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None
