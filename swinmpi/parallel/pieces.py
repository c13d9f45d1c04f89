"""Pieces of images from the ranks that hold them to the ranks that need them, point to point."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from swinmpi.parallel.comm import Group, complete_asleep
from swinmpi.parallel.staging import Staging, to_device
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.moves import Moves, Piece

TAG_PIECES = 5


@dataclass(frozen=True, eq=False)
class Transfer:
    """Moves between canvases of one image: this rank's sources and targets by their place in
    the lists of rectangles."""

    moves: Moves
    sources: Mapping[int, Canvas]
    targets: Mapping[int, Canvas]
    channels: int


class PieceExchange:
    """Sends pieces between the ranks of a group. Messages of one rank to another
    arrive in order."""

    def __init__(self, group: Group):
        self.group = group

    def start(self, transfers: Sequence[Transfer]) -> "Underway":
        """Collective; send what others need, copy what moves at home, and go on computing while
        the rest arrives."""
        with self.group.counted(meet=False):
            underway = Underway(self, transfers)
        for transfer in transfers:
            for piece in transfer.moves.local:
                transfer.targets[piece.target].put(piece,
                                                   transfer.sources[piece.source].take(piece))
        return underway

    def run(self, transfers: Sequence[Transfer]) -> None:
        """Collective; `start` and `finish`."""
        self.start(transfers).finish()


class Underway:
    """Pieces on their way to and from this rank."""

    def __init__(self, exchange: PieceExchange, transfers: Sequence[Transfer]):
        self.group, self.transfers, comm = exchange.group, transfers, exchange.group.comm
        senders = sorted({rank for transfer in transfers for rank in transfer.moves.receives})
        receivers = sorted({rank for transfer in transfers for rank in transfer.moves.sends})
        staging = Staging(device_of(transfers), self.group.direct)
        self.arriving = {
            rank: staging.room(sum(transfer.channels * piece.num_pixels for transfer in transfers
                                   for piece in transfer.moves.receives.get(rank, ())))
            for rank in senders}
        self.requests = [comm.Irecv(staging.buffer(room), source=rank, tag=TAG_PIECES)
                         for rank, room in self.arriving.items()]
        self.leaving = [staging.readable(packed(transfers, rank)) for rank in receivers]
        self.requests += [comm.Isend(staging.buffer(message), dest=rank, tag=TAG_PIECES)
                          for rank, message in zip(receivers, self.leaving, strict=True)]

    def progress(self) -> None:
        """Let MPI move data; call it now and then while computing."""
        for request in self.requests:
            request.Test()

    def finish(self) -> None:
        """Return when everything has arrived and is in its place."""
        sent, received = (sum(buffer.nbytes for buffer in buffers)
                          for buffers in (self.leaving, self.arriving.values()))
        with self.group.counted(sent, received, meet=False):
            if self.group.polite:
                complete_asleep(self.requests)
            for request in self.requests:
                request.Wait()
        for rank, buffer in self.arriving.items():
            self.unpack(rank, to_device(buffer, device_of(self.transfers)))

    def unpack(self, rank: int, buffer: torch.Tensor) -> None:
        first = 0
        for transfer in self.transfers:
            for piece in transfer.moves.receives.get(rank, ()):
                count = transfer.channels * piece.num_pixels
                transfer.targets[piece.target].put(
                    piece, buffer[first:first + count].view(shape_of(transfer, piece)))
                first += count


def packed(transfers: Sequence[Transfer], rank: int) -> torch.Tensor:
    """All that goes to `rank`, one message."""
    parts = [transfer.sources[piece.source].take(piece).reshape(-1)
             for transfer in transfers for piece in transfer.moves.sends.get(rank, ())]
    return torch.cat(parts)


def device_of(transfers: Sequence[Transfer]) -> torch.device:
    """Where the canvases of this rank are."""
    canvases = [canvas for transfer in transfers
                for canvas in (*transfer.targets.values(), *transfer.sources.values())]
    return canvases[0].values.device if canvases else torch.device("cpu")


def shape_of(transfer: Transfer, piece: Piece) -> tuple[int, int, int]:
    return transfer.channels, len(piece.from_rows), len(piece.from_cols)
