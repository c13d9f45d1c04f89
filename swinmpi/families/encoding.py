"""An encoder run once per image by all ranks of a group: every rank a share of the blocks.

An image is encoded in blocks of its own unshifted grid with a halo as wide as the receptive field:
the answer is the whole image's, and a block's bits do not depend on who computes it.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swinmpi.families.difficulty import DIFFICULTIES, TILE_LR_PX, Difficulty, tile_means
from swinmpi.families.family import Encoding
from swinmpi.images.lr_rows import LrRows, union
from swinmpi.models.aligned_encoder import AlignedEncoder
from swinmpi.models.diffuser import autocast
from swinmpi.models.vit import ImageTransformer, Overview, halved
from swinmpi.parallel.comm import Group
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import Transfer
from swinmpi.parallel.shares import Weights, share_in_turn
from swinmpi.parallel.staging import to_host
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.moves import Moves, Rect, plan_moves

ENCODER_BLOCK_PX = 128
BLOCK_HALVINGS = ENCODER_BLOCK_PX.bit_length() - 1
TILES_OF_BLOCK = ENCODER_BLOCK_PX // TILE_LR_PX  # along a side
LrBlock = tuple[range, range]
"""Rows and columns, LR px."""
Shares = Sequence[Sequence[tuple[int, LrBlock]]]
"""By rank: (image slot, block)."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """What all ranks know of a whole image: its global vector (G,), and how hard its tiles are, if
    somebody asked."""

    global_vector: Tensor
    difficulty: Difficulty | None


def encode_in_blocks(encoder: AlignedEncoder, images: Sequence[LrRows],
                     features: Sequence[Sequence[Canvas]], encoding: Encoding,
                     residuals: Sequence[Tensor] | None = None) -> list[Encoded]:
    """Fill the features of images of one size; returns what is known of each. Collective.

    Every rank gets what its windows see. Sums over blocks are added in the order of blocks, for the
    mean of the image; a transformer sees whole images on every rank. features: by image and own
    block, canvases (F + C, h, w) as of `ownership.canvas_areas`. residuals: where root wants the
    residual of whole images, a (C, H, W) for each, to be filled on root, anything on the others.
    """
    group, grid = encoding.pieces.group, encoding.ownership.grid
    blocks = lr_blocks(images[0].height, images[0].width)
    shares = [share_of(len(images), blocks, group.size, rank, encoding.ownership.weights)
              for rank in range(group.size)]
    overviews = overviews_of(encoder.transformer, images, shares, encoding)
    width, measure = encoder.head.out_channels, DIFFICULTIES.get(encoding.difficulty)
    told = torch.zeros(len(shares[group.rank]),
                       width + (TILES_OF_BLOCK**2 if measure is not None else 0),
                       device=encoding.device)
    for turn in range(max(map(len, shares))):
        made = torch.empty(encoder.num_features, 0, 0, device=encoding.device)
        if turn < len(shares[group.rank]):
            slot, block = shares[group.rank][turn]
            with autocast(encoding.device, encoding.precision):
                made, told[turn, :width] = encode_block(encoder, images[slot], block,
                                                        encoding.device, grid.joins,
                                                        overviews[slot])
                if measure is not None:
                    told[turn, width:] = of_tiles(measure(encoder, made), encoder.scale)
        transfers = []
        for rank, share in enumerate(shares):
            for slot, block in share[turn:turn + 1]:
                held = scaled(block, encoder.scale, rank)
                source = Canvas(made, held.rows.start, held.cols.start)
                transfers.append(features_transfer(encoding.ownership_of(slot), held, source,
                                                   features[slot]))
                if residuals is not None:
                    transfers.append(residual_transfer(grid, held, group.rank, source,
                                                       residuals[slot]))
        encoding.pieces.run(transfers)
    encoded, by_image = [], of_blocks(to_host(told), shares, len(images), group)
    for image, of_image, overview in zip(images, by_image, overviews, strict=True):
        vector = (mean_vector(encoder, image, of_image[:, :width], encoding.device)
                  if overview is None else overview.vector[0].float())
        encoded.append(Encoded(vector, None if measure is None else Difficulty(
            tiles_of(of_image[:, width:], blocks), TILE_LR_PX * encoder.scale)))
    return encoded


def mean_vector(encoder: AlignedEncoder, image: LrRows, sums: Tensor,
                device: torch.device) -> Tensor:
    """The global vector (G,) of an image by its blocks' sums of the trunk, (blocks, width)."""
    total = torch.zeros(sums.shape[1])
    for block_sum in sums:
        total += block_sum
    mean = total / (image.height * image.width)
    return encoder.global_vector(mean[None].to(device))[0]


def overviews_of(transformer: ImageTransformer | None, images: Sequence[LrRows],
                 shares: Shares, encoding: Encoding) -> list[Overview | None]:
    """What a transformer sees of images of one size, made whole on every rank: it looks at images
    that are small, or were made so, by all ranks together. Collective."""
    if transformer is None:
        return [None] * len(images)
    size, made = (images[0].height, images[0].width), []
    times = transformer.halvings(size)
    for small in halved_together(images, times, shares, encoding.pieces.group):
        with autocast(encoding.device, encoding.precision):
            made.append(transformer(small[None].to(encoding.device), size,
                                    encoding.ownership.grid.joins))
    return made


def halved_together(images: Sequence[LrRows], times: int, shares: Shares,
                    group: Group) -> list[Tensor]:
    """Images of one size halved so often, (C, h, w) each: every rank those blocks that it encodes,
    which hold whole pixels of the halved image until a block is one. Collective."""
    inside = min(times, BLOCK_HALVINGS)
    side, channels = ENCODER_BLOCK_PX >> inside, len(images[0].values)
    own = torch.zeros(len(shares[group.rank]), channels, side, side)
    for made, (slot, (rows, cols)) in zip(own, shares[group.rank], strict=True):
        part = halved(images[slot].rows(rows)[None, :, :, cols.start:cols.stop], inside)[0]
        made[:, :part.shape[1], :part.shape[2]] = part
    sizes = images[0].height, images[0].width
    down, across = (-(-size // ENCODER_BLOCK_PX) for size in sizes)
    height, width = (-(-size // 2**inside) for size in sizes)
    smalls = []
    for blocks in of_blocks(own, shares, len(images), group):
        whole = blocks.unflatten(0, (down, across)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
        smalls.append(halved(whole[None, :, :height, :width], times - inside)[0])
    return smalls


def of_blocks(own: Tensor, shares: Shares, num_images: int, group: Group) -> list[Tensor]:
    """What ranks have of the blocks of their shares, (blocks, ...) on the CPU, by image, on every
    rank. Collective."""
    everything = group.allgather_arrays(own.numpy(), [len(share) for share in shares])
    return list(torch.from_numpy(everything).chunk(num_images))


def rows_encoded(encoder: AlignedEncoder, lr_size: tuple[int, int], num_images: int,
                 ownership: Ownership) -> list[range]:
    """LR rows that this rank needs for its share of the blocks, by image."""
    share = share_of(num_images, lr_blocks(*lr_size), ownership.num_ranks, ownership.rank,
                     ownership.weights)
    every, joins = range(lr_size[0]), ownership.grid.joins[0]
    seen = [(slot, seen_of(block[0], encoder.radius_px, lr_size[0], joins))
            for slot, block in share]
    return [union(*(rows if rows.start in every and rows.stop - 1 in every else every
                    for at, rows in seen if at == slot)) for slot in range(num_images)]


def lr_blocks(height: int, width: int) -> list[LrBlock]:
    """The encoder's blocks of an LR image, row by row: a function of its size alone."""
    rows, cols = ([range(at, min(at + ENCODER_BLOCK_PX, size))
                   for at in range(0, size, ENCODER_BLOCK_PX)] for size in (height, width))
    return [(down, across) for down in rows for across in cols]


def share_of(num_images: int, blocks: Sequence[LrBlock], num_ranks: int, rank: int,
             weights: Weights | None = None) -> list[tuple[int, LrBlock]]:
    """(image slot, block) of all blocks that `rank` encodes, as many as `weights` say."""
    return [(k // len(blocks), blocks[k % len(blocks)])
            for k in share_in_turn(num_images * len(blocks), num_ranks, rank, 0, weights)]


def seen_of(line: range, radius_px: int, size: int, joins: bool) -> range:
    """LR rows (or columns) of `size` that the features of some of them depend on; where edges join
    those before 0 and from `size` on are the opposite ones."""
    start, stop = line.start - radius_px, line.stop + radius_px
    return range(start, stop) if joins else range(max(0, start), min(size, stop))


def encode_block(encoder: AlignedEncoder, image: LrRows, block: LrBlock, device: torch.device,
                 joins: tuple[bool, bool] = (False, False),
                 overview: Overview | None = None) -> tuple[Tensor, Tensor]:
    """Features (F + C, height * scale, width * scale) of one block, and the sum of its trunk
    (width,), float32 on the device. joins: whether rows, and columns, come round; overview: of the
    image, with a transformer."""
    halo, scale = encoder.radius_px, encoder.scale
    seen, across = (seen_of(line, halo, size, joined) for line, size, joined
                    in zip(block, (image.height, image.width), joins, strict=True))
    left = across.start
    lr = image.around(seen, across) if any(joins) else image.rows(seen)[:, :, left:across.stop]
    lr = lr.to(device)
    trunk = encoder.trunk(lr[None].contiguous(memory_format=torch.channels_last), overview,
                          (seen, across))
    features = encoder.upsample(trunk)[0].float()
    rows, cols = (slice(line.start - start, line.stop - start)
                  for line, start in zip(block, (seen.start, left), strict=True))
    scaled_up = (slice(part.start * scale, part.stop * scale) for part in (rows, cols))
    total = trunk[0, :, rows, cols].float().sum(dim=(1, 2))
    return features[:, *scaled_up].contiguous(), total


def of_tiles(pixels: Tensor, scale: int) -> Tensor:
    """Means of the tiles of a block (h, w) on the HR grid, (TILES_OF_BLOCK^2,), row by row; zero
    where it has none."""
    means = tile_means(pixels, TILE_LR_PX * scale)
    whole = means.new_zeros(TILES_OF_BLOCK, TILES_OF_BLOCK)
    whole[:means.shape[0], :means.shape[1]] = means
    return whole.flatten()


def tiles_of(of_blocks: Tensor, blocks: Sequence[LrBlock]) -> Tensor:
    """The tiles of an image, (rows, cols), out of those of its blocks, (len(blocks), ...) as of
    `of_tiles`."""
    places = [[range(line.start // TILE_LR_PX, -(-line.stop // TILE_LR_PX)) for line in block]
              for block in blocks]
    tiles = of_blocks.new_empty(places[-1][0].stop, places[-1][1].stop)
    for (rows, cols), means in zip(places, of_blocks, strict=True):
        tiles[rows.start:rows.stop, cols.start:cols.stop] = means.view(
            TILES_OF_BLOCK, TILES_OF_BLOCK)[:len(rows), :len(cols)]
    return tiles


def scaled(block: LrBlock, scale: int, rank: int) -> Rect:
    """The block on the HR grid."""
    return Rect(rank, *(range(line.start * scale, line.stop * scale) for line in block))


def features_transfer(ownership: Ownership, held: Rect, source: Canvas,
                      targets: Sequence[Canvas]) -> Transfer:
    """A block's features, to all whose windows see them."""
    moves = moves_of(ownership.grid, held, ownership.canvas_rects, ownership.rank)
    return Transfer(moves, {0: source}, ownership.mine(targets), len(source.values))


def residual_transfer(grid: WindowGrid, held: Rect, rank: int, source: Canvas,
                      residual: Tensor) -> Transfer:
    """The residual of a block, which is the last of its features, to root."""
    whole = Rect(0, range(grid.height_px), range(grid.width_px))
    last = Canvas(source.values[-len(residual):], source.top, source.left)
    return Transfer(moves_of(grid, held, (whole,), rank), {0: last}, {0: Canvas(residual, 0, 0)},
                    len(residual))


@lru_cache(maxsize=1 << 12)
def moves_of(grid: WindowGrid, held: Rect, needed: tuple[Rect, ...], rank: int) -> Moves:
    return plan_moves(grid, [held], needed, rank)
