"""The encoder of the aligned family, run once per image by all ranks of a group: every rank a share of the blocks."""
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from swinmpi.families.condition import AlignedCondition
from swinmpi.families.lr_rows import LrStrip
from swinmpi.models.diffuser import Diffuser, autocast
from swinmpi.parallel.pieces import Job, TorusExchange
from swinmpi.parallel.shares import block_range
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.moves import Area, Moves, plan_moves

ENCODER_BLOCK_PX = 128
LrBlock = tuple[range, range]
"""Rows and columns, LR px."""


def encode_aligned(model: Diffuser, images: Sequence[LrStrip], conditions: Sequence[AlignedCondition],
                   areas: Sequence[Area], exchange: TorusExchange, precision: str, device: torch.device,
                   residuals: Sequence[Tensor] | None = None) -> None:
    """Fill in the conditions of images of one size. Collective.

    An image is encoded in blocks of its own unshifted grid with a halo as wide as the receptive field: the answer is the
    whole image's, and a block's bits do not depend on who computes it. Every rank gets what its windows see. Block sums
    are added in the order of blocks for the image's mean.
    areas: of the canvases of all ranks, rank by rank. residuals: where root wants the residual of whole images, a
    (C, H, W) for each to be filled on root, anything on the others.
    """
    group, encoder = exchange.group, model.encoder
    blocks = lr_blocks(images[0].height, images[0].width)
    shares = [share_of(len(images), blocks, group.size, rank) for rank in range(group.size)]
    sums = torch.zeros(len(shares[group.rank]), encoder.head.out_channels)
    for turn in range(max(map(len, shares))):
        features = torch.empty(encoder.tail.out_channels // encoder.scale**2, 0, 0)
        if turn < len(shares[group.rank]):
            slot, block = shares[group.rank][turn]
            with autocast(device, precision):
                features, sums[turn] = encode_block(encoder, images[slot], block, device)
        jobs = []
        for rank, share in enumerate(shares):
            for slot, block in share[turn:turn + 1]:
                held = scaled(block, encoder.scale, rank)
                source, condition = Canvas(features, held.rows.start, held.cols.start), conditions[slot]
                jobs.append(job_of(condition.grid, held, areas, group.rank, source, condition.features))
                if residuals is not None:
                    jobs.append(residual_job(condition.grid, held, group.rank, source, residuals[slot]))
        exchange.run(jobs)
    everything = group.allgather_arrays(sums.numpy(), [len(share) for share in shares])
    for slot, (image, condition) in enumerate(zip(images, conditions, strict=True)):
        total = torch.zeros(encoder.head.out_channels)
        for block_sum in torch.from_numpy(everything[slot * len(blocks):(slot + 1) * len(blocks)]):
            total += block_sum
        condition.global_vector = encoder.global_vector((total / (image.height * image.width))[None].to(device))[0]


def lr_blocks(height: int, width: int) -> list[LrBlock]:
    """The encoder's blocks of an LR image, row by row: a function of its size alone."""
    rows, cols = ([range(at, min(at + ENCODER_BLOCK_PX, size)) for at in range(0, size, ENCODER_BLOCK_PX)]
                  for size in (height, width))
    return [(down, across) for down in rows for across in cols]


def share_of(num_images: int, blocks: Sequence[LrBlock], num_ranks: int, rank: int) -> list[tuple[int, LrBlock]]:
    """(image slot, block) of all blocks that `rank` encodes."""
    return [(k // len(blocks), blocks[k % len(blocks)]) for k in block_range(num_images * len(blocks), num_ranks, rank)]


def rows_seen(encoder, block: LrBlock, height: int) -> range:
    """LR rows that the features of a block depend on."""
    return range(max(0, block[0].start - encoder.radius_px), min(height, block[0].stop + encoder.radius_px))


def encode_block(encoder, image: LrStrip, block: LrBlock, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features (F + C, height * scale, width * scale) of one block, and the sum of its trunk (width,), float32 on the CPU."""
    seen, halo, scale = rows_seen(encoder, block, image.height), encoder.radius_px, encoder.scale
    left, right = max(0, block[1].start - halo), block[1].stop + halo
    lr = image.rows(seen)[:, :, left:right].to(device)
    trunk = encoder.trunk(lr[None].contiguous(memory_format=torch.channels_last))
    features = encoder.upsample(trunk)[0].float()
    rows, cols = (slice(line.start - start, line.stop - start) for line, start in zip(block, (seen.start, left), strict=True))
    scaled_up = (slice(part.start * scale, part.stop * scale) for part in (rows, cols))
    return features[:, *scaled_up].contiguous().cpu(), trunk[0, :, rows, cols].float().sum(dim=(1, 2)).cpu()


def scaled(block: LrBlock, scale: int, rank: int) -> Area:
    """The block on the HR grid."""
    return Area(rank, *(range(line.start * scale, line.stop * scale) for line in block))


def job_of(grid: WindowGrid, held: Area, areas: Sequence[Area], rank: int, source: Canvas, targets: Sequence[Canvas]) -> Job:
    own = [place for place, area in enumerate(areas) if area.rank == rank]
    return Job(moves_of(grid, held, tuple(areas), rank), {0: source}, dict(zip(own, targets, strict=True)),
               len(source.values))


def residual_job(grid: WindowGrid, held: Area, rank: int, source: Canvas, residual: Tensor) -> Job:
    """The residual of a block, which is the last of its features, to the root."""
    whole = Area(0, range(grid.height_px), range(grid.width_px))
    return Job(moves_of(grid, held, (whole,), rank), {0: Canvas(source.values[-len(residual):], source.top, source.left)},
               {0: Canvas(residual, 0, 0)}, len(residual))


@lru_cache(maxsize=1 << 12)
def moves_of(grid: WindowGrid, held: Area, needed: tuple[Area, ...], rank: int) -> Moves:
    return plan_moves(grid, [held], needed, rank)
