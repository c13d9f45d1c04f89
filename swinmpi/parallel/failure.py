"""How the failure of one rank becomes the end of all: one message, one exit code, nothing that
hangs (promise 8)."""
import ctypes
import fcntl
import os
import pickle
import signal
import struct
import sys
import termios
import time
import traceback
from contextlib import suppress

from swinmpi.errors import SomeImagesFailed, Stopped, SwinmpiError

RAISED_BY_ALL = (Stopped, SomeImagesFailed)
HEAD_START_S, ECHO_PATIENCE_S, ABORT_PATIENCE_S = 0.5, 30.0, 10
DRAIN_PATIENCE_S, POLL_S, FORWARD_S = 2.0, 1e-3, 0.1
PR_SET_PDEATHSIG = 1  # of prctl(2)


def exit_code(error: BaseException) -> int:
    """What the process ends with because of `error`; 0 for `sys.exit()` and `sys.exit(0)`."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return getattr(error, "exit_code", 128 + signal.SIGINT)
    return getattr(error, "exit_code", 1)


def is_echo(error: BaseException) -> bool:
    """True where another rank prints this error, or it has been printed."""
    return getattr(error, "echo", False)


def raised_by_all(error: BaseException) -> bool:
    """True where every rank leaves by the same exception: shared by `World.on_root`, or agreed
    on by its nature."""
    return getattr(error, "shared", False) or isinstance(error, RAISED_BY_ALL)


def tell(error: BaseException, rank: int) -> None:
    """Print the one message on stderr and see that the launcher has it."""
    print(f"swinmpi: {f'rank {rank}: ' if rank else ''}{text_of(error)}", file=sys.stderr)
    hand_over_output()


def abort_all(error: BaseException, rank: int) -> None:
    """Tell `error` and end every rank with its exit code. Does not return."""
    if rank:
        # What all ranks meet is told by root alone: it gets a head start, and for what it
        # shared all its time.
        time.sleep(ECHO_PATIENCE_S if is_echo(error) else HEAD_START_S)
    tell(error, rank)
    # All is said; what MPI adds to stderr about its own abort would only hide it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    die_unless_over_in(ABORT_PATIENCE_S)
    from mpi4py import MPI
    MPI.COMM_WORLD.Abort(exit_code(error))


def die_unless_over_in(seconds: int) -> None:
    """Whatever launcher does not act on an abort or an exit: death by a signal is what
    none can overlook."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def die_with_parent() -> None:
    """From now on the kernel (Linux) kills this process when the one that started it dies;
    does nothing elsewhere.

    Without their launcher's daemon mpich's ranks would finish their work unseen, or wait for ever
    in MPI_Init or MPI_Finalize, where no thread of Python runs that could watch.
    """
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pickled_failure(error: Exception) -> bytes:
    """`error` pickled; one that cannot travel is replaced by a RuntimeError with its text."""
    try:
        payload = pickle.dumps(error)
        pickle.loads(payload)
        return payload
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def text_of(error: BaseException) -> str:
    """One line for an expected end, the traceback for the rest."""
    if isinstance(error, SwinmpiError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, str) else f"ended with exit code {error.code}"
    return f"unexpected failure\n{''.join(traceback.format_exception(error))}".rstrip()


def hand_over_output() -> None:
    """Flush, and wait until the launcher has read it: on abort mpich's drops what
    is still in its pipes."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    deadline = time.monotonic() + DRAIN_PATIENCE_S
    with suppress(OSError):
        while any(unread_bytes(number) for number in (1, 2)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    time.sleep(FORWARD_S)


def unread_bytes(file_number: int) -> int:
    """Bytes written to this end of a pipe and not yet read at the other."""
    return struct.unpack("i", fcntl.ioctl(file_number, termios.FIONREAD, b"    "))[0]
