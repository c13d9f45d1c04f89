"""CelebA's partition file, which says what every picture is for: lines of a picture's name and
0 (train), 1 (validate) or 2 (test), `list_eval_partition.txt`, or `.csv` with a header."""
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from swinmpi.errors import StackError
from swinmpi.storage.pairs import TEST, TRAIN, VALIDATE

NAMES = ("list_eval_partition.txt", "list_eval_partition.csv")
PARTS = {"0": TRAIN, "1": VALIDATE, "2": TEST}


def find_partition(folder: Path, names: Sequence[str]) -> Path | None:
    """The file that says it of the pictures below `folder`: among its files `names`, beside it, or
    where CelebA's own folders have it."""
    inside = [folder / name for name in names if PurePosixPath(name).name in NAMES]
    above = folder.resolve().parent
    around = [place / name for place in (above, above / "Eval", above.parent / "Eval")
              for name in NAMES]
    return next((path for path in (*inside, *around) if path.is_file()), None)


def splits_by(path: Path, pictures: Sequence[str]) -> list[int]:
    """The split of every picture, given by its path. StackError where the file cannot be
    understood, or lacks one."""
    parts, names = read_partition(path), [PurePosixPath(picture).name for picture in pictures]
    if missing := [name for name in names if name not in parts]:
        raise StackError(f"{path}: expected a line for every picture, found none for {missing[0]} "
                         f"and {len(missing) - 1} others; name a folder of its pictures alone, or "
                         "move the list away")
    return [parts[name] for name in names]


def read_partition(path: Path) -> dict[str, int]:
    """Split by name. StackError for a line that is not one, or a picture named twice."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise StackError(f"{path}: cannot read the partition: {error.strerror}") from None
    if lines and path.suffix == ".csv":
        lines[0] = ""
    parts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        words = re.split(r"[\s,]+", line.strip())
        if words == [""]:
            continue
        if len(words) != 2 or words[1] not in PARTS or words[0] in parts:
            raise StackError(f"{path}:{number}: expected the name of another picture and 0 "
                             f"(train), 1 (validate) or 2 (test), got {line.strip()!r:.60}")
        parts[words[0]] = PARTS[words[1]]
    return parts
