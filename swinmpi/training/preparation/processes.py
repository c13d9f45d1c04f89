"""Images prepared by several processes, of which each decodes one at a time."""
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial

import torch

from swinmpi.errors import StackError
from swinmpi.parallel.ahead import Work, made_ahead
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.training.preparation.sources import Source
from swinmpi.training.preparation.values import CommonValues


def spread(work: Work, sources: Sequence[Source], num_workers: int, values: CommonValues,
           writer: PairWriter) -> AbstractContextManager[Work]:
    """`work` on image indices by so many processes, see `made_ahead`. What it asks `values` about
    all images is found out before, once."""
    num_workers = min(num_workers, len(sources))
    if num_workers > 1:
        with suppress(StackError):  # it comes up again where it is asked for
            _ = values.survey
    return made_ahead(work, [source.name for source in sources], num_workers,
                      partial(begin, sources, writer))


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
