"""Exchange `torus` (promise 3): ranks send each other only what the change of shift moves; root has no special part."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from swinmpi.parallel.comm import Group, complete_asleep
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.moves import Moves, Piece

TAG_STRIPS = 5


@dataclass(frozen=True, eq=False)
class Job:
    """Moves between canvases of one image: this rank's sources and targets by their place in the lists of areas."""

    moves: Moves
    sources: Mapping[int, Canvas]
    targets: Mapping[int, Canvas]
    channels: int


class TorusExchange:
    """The ranks of a group as a ring with the windows laid around it row by row: neighbours in the image are mostly
    neighbours in the ring, and the last row of windows meets the first (border `wrap`)."""

    def __init__(self, group: Group):
        self.group = group
        self.ring = group.comm.Create_cart([group.size], periods=[True], reorder=False) if group.size > 1 else None

    def start(self, jobs: Sequence[Job]) -> "Transit":
        """Collective; send what others need, copy what moves at home, and go on computing while the rest arrives."""
        with self.group.counted(meet=False):
            transit = Transit(self, jobs)
        for job in jobs:
            for piece in job.moves.local:
                job.targets[piece.target].put(piece, job.sources[piece.source].take(piece))
        return transit

    def run(self, jobs: Sequence[Job]) -> None:
        """Collective; `start` and `finish`."""
        self.start(jobs).finish()


class Transit:
    """Strips on their way to and from this rank."""

    def __init__(self, exchange: TorusExchange, jobs: Sequence[Job]):
        self.group, self.jobs, ring = exchange.group, jobs, exchange.ring
        senders = sorted({rank for job in jobs for rank in job.moves.receives})
        receivers = sorted({rank for job in jobs for rank in job.moves.sends})
        self.arriving = {rank: np.empty(sum(job.channels * piece.num_pixels for job in jobs
                                            for piece in job.moves.receives.get(rank, ())), np.float32) for rank in senders}
        self.requests = [ring.Irecv(buffer, source=rank, tag=TAG_STRIPS) for rank, buffer in self.arriving.items()]
        self.leaving = [packed(jobs, rank) for rank in receivers]
        self.requests += [ring.Isend(buffer, dest=rank, tag=TAG_STRIPS)
                          for rank, buffer in zip(receivers, self.leaving, strict=True)]

    def progress(self) -> None:
        """Let MPI move data; call it now and then while computing."""
        for request in self.requests:
            request.Test()

    def finish(self) -> None:
        """Return when everything has arrived and is in its place."""
        sent, received = (sum(buffer.nbytes for buffer in buffers) for buffers in (self.leaving, self.arriving.values()))
        with self.group.counted(sent, received, meet=False):
            if self.group.polite:
                complete_asleep(self.requests)
            for request in self.requests:
                request.Wait()
        for rank, buffer in self.arriving.items():
            self.unpack(rank, torch.from_numpy(buffer))

    def unpack(self, rank: int, buffer: torch.Tensor) -> None:
        first = 0
        for job in self.jobs:
            for piece in job.moves.receives.get(rank, ()):
                count = job.channels * piece.num_pixels
                job.targets[piece.target].put(piece, buffer[first:first + count].view(shape_of(job, piece)))
                first += count


def packed(jobs: Sequence[Job], rank: int) -> np.ndarray:
    """All that goes to `rank`, one message."""
    parts = [job.sources[piece.source].take(piece).reshape(-1).cpu()
             for job in jobs for piece in job.moves.sends.get(rank, ())]
    return torch.cat(parts).numpy()


def shape_of(job: Job, piece: Piece) -> tuple[int, int, int]:
    return job.channels, len(piece.from_rows), len(piece.from_cols)
