"""Files that are written whole or not at all, and errors of writing that a user can read.

Written whole: under another name beside the final one, fsync, rename, fsync of the folder.
"""
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from swinmpi.errors import OutputError
from swinmpi.interruption import raise_waiting, uninterrupted
from swinmpi.storage.address import reason_of

# Names of other formats, under which HDF5 would mislead.
OTHER_KINDS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".npy", ".npz",
               ".zarr", ".csv", ".txt", ".json", ".yaml", ".safetensors")
LONGEST_SUFFIX = ".partial.new"
ErrorTypes = type[Exception] | tuple[type[Exception], ...]

class Sink(io.FileIO):
    """Where HDF5 writes: an unbuffered file for `h5py.File(sink, ...)` whose failures wait.

    HDF5 crashes the process when a write fails as it closes. So a full disk is raised by `check`
    or `sync`, not inside HDF5; and so is Ctrl-C.
    """

    def __init__(self, file, mode: str = "r+b"):
        super().__init__(file, mode)
        self.failure: OSError | None = None
        self.on_close: Callable[[], None] | None = None

    @uninterrupted
    def write(self, data) -> int:
        """Write all of `data`; after a failure do nothing, so that HDF5 can close in peace."""
        rest = memoryview(data).cast("B")
        while self.failure is None and len(rest):
            try:
                rest = rest[super().write(rest):]
            except OSError as error:
                self.failure = error
        return len(data)

    @uninterrupted
    def readinto(self, buffer) -> int:
        """Fill `buffer` unless the file ends before.

        One read of the system may stop earlier, at 2 GiB for example.
        """
        rest = memoryview(buffer).cast("B")
        while len(rest) and (count := super().readinto(rest)):
            rest = rest[count:]
        return len(buffer) - len(rest)

    @uninterrupted
    def truncate(self, size=None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raise the OSError that a write met, or the signal that came meanwhile, if any.

        Flush HDF5 first.
        """
        raise_waiting()
        if self.failure is not None:
            raise self.failure

    def sync(self) -> None:
        """Return when all that was written would survive a power cut; OSError when not."""
        self.check()
        os.fsync(self.fileno())

    def close(self) -> None:
        """Close, and once after that call `on_close`."""
        super().close()
        then, self.on_close = self.on_close, None
        if then is not None:
            then()


def write_atomically(path: Path, content: bytes) -> None:
    """Write `path` whole; OutputError, and nothing left, when that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with as_output_error(path, "cannot write: {reason}", "make room or choose another folder",
                         reason=system_reason):
        with discarding(temporary):
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, path)


@uninterrupted
def put_in_place(new: Path, path: Path) -> None:
    """Rename a file that is whole. OSError where that fails.

    Where only the folder cannot be synced, a line says so: the file is there.
    """
    os.replace(new, path)
    try:
        sync_folder(path.parent)
    except OSError as error:
        tell(f"{path}: is written, but may be lost in a power cut: its folder cannot be synced "
             f"({system_reason(error)})")


@contextmanager
def discarding(*unfinished: Path) -> Iterator[None]:
    """Remove unfinished files when the block fails; the error then tells which ones it could not,
    as its `left`."""
    try:
        yield
    except BaseException as error:
        error.left = "; ".join(filter(None, map(remove, unfinished)))
        raise


def remove(path: Path) -> str:
    """Remove a file that may be there; what to tell where it cannot be."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return f"{path} is left behind ({system_reason(error)}), delete it"
    return ""


def tell(text: str) -> None:
    """One line on something that does not keep the run from going on."""
    print(f"swinmpi: {text}", file=sys.stderr, flush=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def as_output_error(path: Path, problem: str, advice: str, kinds: ErrorTypes = OSError,
                    reason: Callable[[Exception], str] = reason_of) -> Iterator[None]:
    """An exception of `kinds` inside becomes an OutputError in one line.

    problem: what cannot be done, {reason} standing for what `reason` says of the exception.
    advice: what the user can do.
    """
    try:
        yield
    except kinds as error:
        said = problem.format(reason=reason(error))
        refused = OutputError(f"{path}: {said}; {advice}")
        refused.left = getattr(error, "left", "")
        raise refused from None


def system_reason(error: OSError) -> str:
    """The system's words for an error, else HDF5's own."""
    return error.strerror or reason_of(error)


def check_place(path: Path, words: Mapping[str, str], overwrite: bool,
                input_path: Path | None = None) -> None:
    """OutputError unless `path` can be created, or replaced with `overwrite`.

    words: what to say of each of `PROBLEMS` that matters, in the order in which they are looked
    for; {folder} and {input} stand for those.
    """
    for problem, text in words.items():
        if problem == "exists" and overwrite:
            continue
        if PROBLEMS[problem](path, input_path):
            said = text.format(folder=existing_folder(path), input=input_path)
            raise OutputError(f"{path}: {said}")


def check_by_trying(path: Path) -> None:
    """OutputError unless a file can be made where `path` is to be, or where its folder is to be
    made. Leaves nothing behind."""
    folder = existing_folder(path)
    try:
        # Rights tell little for root or on a read-only mount: only trying does.
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{path}: cannot write into the folder {folder} "
                          f"({error.strerror}); choose another --output") from None


def is_too_long(path: Path) -> bool:
    """Whether a name on the way to `path`, or of a file beside it, is longer than can be made."""
    folder = existing_folder(path)
    try:
        longest, whole = os.pathconf(folder, "PC_NAME_MAX"), os.pathconf(folder, "PC_PATH_MAX")
    except OSError:  # nothing is said, or it is no folder, which is told otherwise
        return False
    longer = beside(path, LONGEST_SUFFIX)
    return (any(len(os.fsencode(part)) > longest for part in longer.parts)
            or len(os.fsencode(longer)) >= whole)


def is_input(path: Path, input_path: Path) -> bool:
    """Whether writing `path`, or one of the files beside it on the way there, writes the input."""
    mine = (path, beside(path, ".partial"), beside(path, ".packing"))
    return os.path.exists(input_path) and any(
        os.path.exists(one) and os.path.samefile(one, input_path) for one in mine)


def is_writable(folder: Path) -> bool:
    """Whether this user may make files in `folder`, as far as its mode says."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=effective)


def existing_folder(path: Path) -> Path:
    """The folder of `path`, or of those above it the first that exists; the others can be made."""
    return next(folder for folder in path.parents if os.path.lexists(folder))


def make_folder_of(path: Path) -> None:
    """Make the folder of a file where it is missing; OutputError where that fails."""
    with as_output_error(path, "cannot make its folder: {reason}", "choose another --output",
                         reason=system_reason):
        path.parent.mkdir(parents=True, exist_ok=True)


def beside(path: Path, suffix: str) -> Path:
    """out.h5 -> out.h5.partial, for example."""
    return path.with_name(path.name + suffix)


# What may be wrong with the place of a file, by name; see `check_place`.
PROBLEMS: dict[str, Callable[[Path, Path | None], bool]] = {
    "other kind": lambda path, _: path.suffix.lower() in OTHER_KINDS,
    "no folder": lambda path, _: not os.path.isdir(existing_folder(path)),
    "not writable": lambda path, _: not is_writable(existing_folder(path)),
    "too long": lambda path, _: is_too_long(path),
    "in the way": lambda path, _: any(os.path.isdir(beside(path, suffix)) for suffix in
                                      (".partial", ".partial.new", ".packing")),
    "is a folder": lambda path, _: os.path.isdir(path),
    "is no file": lambda path, _: os.path.exists(path) and not os.path.isfile(path),
    "is the input": is_input,
    "exists": lambda path, _: os.path.exists(path),
}
