"""Images prepared by several processes, of which each decodes one at a time."""
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import torch

from swinmpi.errors import StackError
from swinmpi.parallel.ahead import Work, made_ahead
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.storage.values import Look, each_readable
from swinmpi.training.preparation.sources import Source
from swinmpi.training.preparation.values import CommonValues

Processes = tuple[Sequence[str], int, Callable[[], None]]
"""What `made_ahead` needs beside the work."""


def spread(work: Work, sources: Sequence[Source], num_workers: int, values: CommonValues,
           writer: PairWriter, measured: bool = True) -> AbstractContextManager[Work]:
    """`work` on image indices by so many processes, see `made_ahead`. What it asks `values` is
    found out before, once; measured: it asks for the range as well."""
    processes = ([source.name for source in sources], min(num_workers, len(sources)),
                 partial(begin, sources, writer))
    if processes[1] > 1:
        values.each = partial(each_by, processes)
        with suppress(StackError):  # it comes up again where it is asked for
            _ = values.survey if measured else values.kind
        values.each = each_readable
    return made_ahead(work, *processes)


def each_by(processes: Processes, stack, look: Look) -> Iterator[Any]:
    """`each_readable`, by several processes."""
    def found(image_index: int) -> Iterator[Any]:
        with suppress(StackError):
            yield look(image_index, stack.read(image_index))

    with made_ahead(found, *processes) as found_in:
        for image_index in range(stack.num_images):
            yield from found_in(image_index)


def begin(sources: Sequence[Source], writer: PairWriter) -> None:
    """In a forked process: one thread, nothing of the output, and input files of its own, because
    HDF5 does not share an open one between processes."""
    torch.set_num_threads(1)
    os.close(writer.sink.fileno())  # else its lock would outlive the writing process
    stacks = {id(source.stack): source.stack
              for one in sources for source in (one, one.lr) if source is not None
              if source.stack is not None}.values()
    for stack in stacks:  # all, before the first is opened: HDF5 knows a file that is open already
        stack.close()
    for stack in stacks:
        stack.open_again()
