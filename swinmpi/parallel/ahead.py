"""Items made ahead of their turn by processes of this machine: many work, one asks in order.

The asking process forks them, deals out numbers and gets for each what a generator yields for it,
in the order in which it asks, whoever was first. Nothing of what comes depends on how many they
are. Signals and files are the asking process's business: they ignore the ones and write none of
the others, so it can end them at any moment.
"""
import multiprocessing
import os
import pickle
import signal
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

from swinmpi.errors import SwinmpiError
from swinmpi.parallel.failure import die_with_parent, pickled_failure

HELD_BYTES = 256 << 20  # of items whose turn has not come; from there on others wait with theirs
NUMBERS_EACH = 2  # that a process may be ahead
ITEM, WARNING, FAILED, END = range(4)
Work = Callable[[int], Iterator[Any]]
"""Number -> its items, small enough to be held, picklable."""


@contextmanager
def made_ahead(work: Work, names: Sequence[str], num_processes: int,
               begin: Callable[[], None] = lambda: None) -> Iterator[Work]:
    """`work` for the numbers 0..len(names)-1, each asked for once, in this order.

    names: of what is worked on, for messages; begin: what each of the processes does first. With
    one process it is `work` itself, here. Raises what `work` raises, and SwinmpiError where a
    process is ended by somebody else.
    """
    if num_processes == 1:
        yield work
        return
    ahead = Ahead(work, names)
    try:
        for _ in range(num_processes):
            ahead.start(begin)
        yield ahead.items
    finally:
        ahead.end()


class Ahead:
    """The asking side: processes with a connection each, and what came from them before its turn,
    as it came."""

    def __init__(self, work: Work, names: Sequence[str]):
        self.work, self.names = work, names
        self.processes: dict[Connection, BaseProcess] = {}
        self.busy: dict[Connection, int] = {}
        self.held: dict[int, deque[tuple[int, bytes]]] = {}
        self.held_bytes, self.dealt = 0, 0

    def start(self, begin: Callable[[], None]) -> None:
        """One more process. It is forked, so it knows what is known here, and starts at once."""
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, daemon=True,
                                  args=(theirs, self.work, begin, os.getpid()))
        process.start()
        theirs.close()  # the process alone holds it: with it the connection ends
        self.processes[ours] = process

    def items(self, number: int) -> Iterator[Any]:
        """Of one number; what was made for others meanwhile waits for its turn."""
        self.deal(number)
        while number not in self.held:  # all are still at numbers that nobody waits for any more
            self.receive(number)
        held = self.held[number]
        try:
            while True:
                while held:
                    kind, payload = held.popleft()
                    self.held_bytes -= len(payload)
                    if kind == END:
                        return
                    yield from opened(kind, payload)
                self.receive(number)
        finally:  # whoever asks may stop in the middle
            self.held_bytes -= sum(len(payload) for _, payload in held)
            del self.held[number]

    def deal(self, asked: int) -> None:
        """Give idle processes the next numbers, not too far from the one that is asked for."""
        last = min(len(self.names), asked + NUMBERS_EACH * len(self.processes))
        for connection in self.processes.keys() - self.busy.keys():
            if self.dealt < last:
                self.busy[connection], self.held[self.dealt] = self.dealt, deque()
                try:
                    connection.send(self.dealt)
                except OSError:
                    self.refuse_to_go_on(connection)
                self.dealt += 1

    def receive(self, asked: int) -> None:
        """Take what processes have ready; where too much is held, nothing more to hold."""
        room = self.held_bytes < HELD_BYTES
        for connection in wait([one for one, number in self.busy.items()
                                if room or number == asked or number not in self.held]):
            try:
                message = connection.recv_bytes()
            except (EOFError, OSError):
                self.refuse_to_go_on(connection)
            kind, payload = message[0], message[1:]
            if (number := self.busy[connection]) in self.held:
                self.held[number].append((kind, payload))
                self.held_bytes += len(payload)
            if kind in (END, FAILED):
                del self.busy[connection]
                self.deal(asked)

    def refuse_to_go_on(self, connection: Connection) -> NoReturn:
        """SwinmpiError for a process that is gone."""
        process, name = self.processes[connection], self.names[self.busy[connection]]
        process.join(1)
        code = process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        memory = (", as the system does when memory runs out" if code == -signal.SIGKILL else "")
        raise SwinmpiError(f"{name}: the process that worked on it was ended {how}{memory}; start "
                           "again, with fewer --workers if memory was short")

    def end(self) -> None:
        """Nothing is left of the processes."""
        for process in self.processes.values():
            process.kill()
        for connection, process in self.processes.items():
            process.join()
            connection.close()


def opened(kind: int, payload: bytes) -> Iterator[Any]:
    """What a process passed on: an item, or a warning or failure, which come up here."""
    content = pickle.loads(payload)  # of a process of our own, nothing of a file
    if kind == FAILED:
        raise content
    if kind == WARNING:
        warnings.warn(*content, stacklevel=2)
    else:
        yield content


def serve(connection: Connection, work: Work, begin: Callable[[], None], parent: int) -> None:
    """What a process does until it is ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    die_with_parent()
    if os.getppid() != parent:
        return
    begun = False
    while True:
        number = connection.recv()
        try:
            if not begun:
                begin()
                begun = True
            with warnings.catch_warnings(record=True) as heard:
                for item in work(number):
                    pass_on(connection, heard)
                    tell(connection, ITEM, pickle.dumps(item))
                pass_on(connection, heard)
        except Exception as error:  # it is raised where it is asked for
            if not isinstance(error, SwinmpiError):
                error.__notes__ = [traceback.format_exc()]
            tell(connection, FAILED, pickled_failure(error))
        else:
            tell(connection, END)


def pass_on(connection: Connection, heard: list[warnings.WarningMessage]) -> None:
    """Warnings are given by the asking process."""
    for one in heard:
        tell(connection, WARNING, pickle.dumps((str(one.message), one.category)))
    heard.clear()


def tell(connection: Connection, kind: int, payload: bytes = b"") -> None:
    connection.send_bytes(bytes([kind]) + payload)
