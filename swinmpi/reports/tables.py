"""Plain text for the end of a command: aligned tables."""
from collections.abc import Iterable, Sequence

MOST_NAMED = 8


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]],
                 text_columns: int = 1) -> str:
    """Columns as wide as their widest cell, the first `text_columns` to the left, the others
    to the right, a rule under the header.

    >>> print(format_table(["image", "PSNR"], [["0", "28.19"], ["mean", "9.5"]]))
    image   PSNR
    -----  -----
    0      28.19
    mean     9.5
    """
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) if column < text_columns else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines)


def listed(image_indices: Iterable[int]) -> str:
    """`3, 7, 12`; of many the first."""
    named = [str(index) for index in sorted(image_indices)]
    more = f" and {len(named) - MOST_NAMED} more" if named[MOST_NAMED:] else ""
    return ", ".join(named[:MOST_NAMED]) + more
