"""What Ctrl-C and SIGTERM do to a command: an exception at once, but never inside of what the HDF5
library calls, which takes any exception there for a broken file."""
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType

AGAIN_S = 0.05
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}

_shielded: set[CodeType] = set()
_waiting: list[int] = []  # the signal that came inside of a shielded function, if any


class Interrupted(KeyboardInterrupt):
    """The user or the system wants this process to end. left: what could not be cleaned up."""

    left = ""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_code = 128 + number

    def __str__(self) -> str:
        said = WORDS[signal.Signals(self.exit_code - 128)]
        return f"{said}; {self.left}" if self.left else said


def uninterrupted(function: Callable) -> Callable:
    """Signals that come while `function` runs wait for `raise_waiting`, or until it has ended."""
    _shielded.add(function.__code__)
    return function


def raise_waiting() -> None:
    """A moment at which nothing is half done: raise Interrupted if a signal came before."""
    if _waiting and threading.current_thread() is threading.main_thread():
        raise Interrupted(_waiting.pop())


class Interruptible:
    """`with Interruptible():` SIGINT and SIGTERM raise Interrupted inside, once it is safe.

    Handlers that somebody else put up before, or puts up inside, stay; so do ignored signals.
    """

    def __enter__(self) -> "Interruptible":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in WORDS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, _handle)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._not_raised
        return self

    def __exit__(self, *_) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)
        _waiting.clear()

    def _not_raised(self, failure) -> None:
        """An exception that comes up in a destructor is lost: try again."""
        if isinstance(failure.exc_value, Interrupted):
            _wait(failure.exc_value.exit_code - 128)
        else:
            self._hook(failure)


def _handle(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code in _shielded:
            _wait(number)
            return
        frame = frame.f_back
    _waiting.clear()
    raise Interrupted(number)


def _wait(number: int) -> None:
    """Until `raise_waiting`, or until the signal, sent again in a moment, meets a better one."""
    _waiting[:] = [number]
    timer = threading.Timer(AGAIN_S, _send_again, (number,))
    timer.daemon = True
    timer.start()


def _send_again(number: int) -> None:
    if _waiting == [number]:
        os.kill(os.getpid(), number)
