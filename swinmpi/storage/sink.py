"""Where HDF5 writes: a file whose failures wait, because HDF5 crashes the process when a write fails as it closes."""
import io
import os
from collections.abc import Callable


class Sink(io.FileIO):
    """An unbuffered file for `h5py.File(sink, ...)`; a full disk is raised by `check` or `sync`, not inside HDF5."""

    def __init__(self, file, mode: str = "r+b"):
        super().__init__(file, mode)
        self.failure: OSError | None = None
        self.on_close: Callable[[], None] | None = None

    def write(self, data) -> int:
        """Write all of `data`; after a failure do nothing, so that HDF5 can close in peace."""
        rest = memoryview(data).cast("B")
        while self.failure is None and len(rest):
            try:
                rest = rest[super().write(rest):]
            except OSError as error:
                self.failure = error
        return len(data)

    def readinto(self, buffer) -> int:
        """Fill `buffer` unless the file ends before; one read of the system may stop earlier, at 2 GiB for example."""
        rest = memoryview(buffer).cast("B")
        while len(rest) and (count := super().readinto(rest)):
            rest = rest[count:]
        return len(buffer) - len(rest)

    def truncate(self, size=None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raise the OSError that a write met, if any; flush HDF5 first."""
        if self.failure is not None:
            raise self.failure

    def sync(self) -> None:
        """Return when all that was written would survive a power cut; OSError when it would not."""
        self.check()
        os.fsync(self.fileno())

    def close(self) -> None:
        """Close, and once after that call `on_close`."""
        super().close()
        then, self.on_close = self.on_close, None
        if then is not None:
            then()
