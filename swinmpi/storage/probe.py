"""A first look at a user's HDF5 file by a child process: a damaged file can crash or hang HDF5.

The child does with the file all that a run does later: it finds the datasets, copies attributes and
axes, walks the chunk index and reads images. What it survives is safe to open in the ranks. It
never touches MPI.
"""
import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from swinmpi.errors import ConfigError, StackError, SwinmpiError
from swinmpi.storage.address import DAMAGE, open_file, parse_address, reason_of
from swinmpi.storage.inspected import is_known_sound, mark_of, remember_sound, stands_alone
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.outputs.carrying import DATA, carried
from swinmpi.storage.outputs.merging import read_shard
from swinmpi.storage.outputs.result import find_failed, find_sibling, read_process
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.stack import Stack
from swinmpi.storage.virtual import (
    check_images_shown,
    check_raw_files,
    check_source,
    virtual_sources,
)

# Of pixels: all images of a small stack, of a large one the first, the last and some between.
READ_BYTES, READ_IMAGES = 64 << 20, 4096
MEMORY_BYTES = 2 << 30  # beside the images; attributes, axes and chunks need far less
SMALL_CHUNK_BYTES = 1 << 16
# Processor time, so that a slow disk is not taken for a loop.
CPU_S, CPU_S_PER_GIB, CPU_S_PER_CHUNK, PATIENCE_S = 8, 10, 1e-5, 120
LAUNCHERS = ("PMI", "PMIX", "OMPI_", "PRTE_", "MPI_LOCAL", "HYDRA", "HYDI", "MPIEXEC", "MPIR_",
             "SLURM_")
START = ("import sys; sys.path[:] = {path!r}; from swinmpi.storage.probe import child; "
         "child(*sys.argv[1:])")


def inspect_stacks(addresses: Sequence[str], allow_external: bool = False,
                   view: View = AS_STORED) -> None:
    """StackError unless every stack can be opened, and read without harm to this process.

    Images that merely cannot be read are no error here. About 0.3 s, for any number of stacks, but
    for those that this process has found sound before and that did not change. On one process.
    """
    inspect("stack", addresses, allow_external, view)


def inspect_pairs(path: str) -> None:
    """The same for a file of training pairs."""
    inspect("pairs", [path], False)


def inspect_shards(paths: Sequence[Path]) -> None:
    """The same for the files that swinmpi-merge joins; their chunks are copied, not unpacked."""
    inspect("shard", [str(path) for path in paths], False)


def inspect(kind: str, addresses: Sequence[str], allow_external: bool,
            view: View = AS_STORED) -> None:
    """Have a child look at all addresses, but those known to be sound; raises what it finds."""
    seen_as = json.dumps(asdict(view))
    marks = {address: mark_of(kind, address, seen_as) for address in addresses}
    addresses = [address for address, mark in marks.items() if not is_known_sound(mark)]
    if not addresses:
        return
    environ = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    environ |= {"MPI4PY_RC_INITIALIZE": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    # Not -m: that would import modules from the current folder, where the user's data lie.
    start = START.format(path=sys.path)
    command = [sys.executable, "-c", start, kind, str(int(allow_external)), seen_as, *addresses]
    try:
        done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=PATIENCE_S)
        out, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as expired:
        out, code = expired.stdout or b"", -signal.SIGXCPU
    except OSError as error:
        raise SwinmpiError("cannot start the process that checks the input "
                           f"({error.strerror}); allow more processes") from None
    said = [json.loads(line) for line in out.splitlines() if line.startswith(b'{"')]
    alone = [words["alone"] for words in said if "alone" in words]
    judge(said[:len(said) - len(alone)], code, done.stderr if code >= 0 else b"")
    for address in alone:
        if mark_of(kind, address, seen_as) == marks[address]:
            remember_sound(marks[address])


def judge(said: Sequence[dict], code: int, stderr: bytes) -> None:
    """Raise what the child's words and its exit code mean."""
    last = said[-1] if said else {}
    if "refused" in last:
        raise StackError(last["refused"])
    if "looking" in last:
        path = parse_address(last["looking"]).path
        deed = "hung" if code == -signal.SIGXCPU else "crashed"
        raise StackError(f"{path}: the HDF5 file is damaged (the HDF5 library {deed} reading it); "
                         "write it again")
    if "done" not in last:
        told = stderr.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
        raise SwinmpiError(f"the process that checks the input failed: {told[-1]}")


# In the child

def child(kind: str, allow_external: str, view: str, *addresses: str) -> None:
    """Look at every file and print one JSON object a line.

    It says what is looked at, then why it is refused, or done, and then which files have all in
    themselves. view: JSON.
    """
    look = {"stack": partial(look_at_stack, view=View(**json.loads(view))),
            "pairs": look_at_pairs, "shard": look_at_shard}[kind]
    external = bool(int(allow_external))
    bound(resource.RLIMIT_CORE, 0)
    for address in addresses:
        say(looking=address)
        path = parse_address(address).path
        limit(path)
        problem = problem_of(partial(look, address, external), path)
        if problem is not None:
            say(refused=problem)
            return
    say(done=True)
    # What comes of this is no matter: all has been said.
    for address in addresses:
        if stands_alone(parse_address(address).path):
            say(alone=address)


def problem_of(look: Callable[[], None], path: Path) -> str | None:
    try:
        look()
    except (StackError, ConfigError) as error:
        return str(error)
    except MemoryError:
        return (f"{path}: the HDF5 file is damaged (its metadata claim more memory than there is); "
                "write it again")
    except Exception as error:  # noqa: BLE001 - whatever it is, the run would meet it as well
        return f"{path}: the HDF5 file is damaged ({reason_of(error)}); write it again"
    return None


def look_at_stack(address: str, allow_external: bool, view: View = AS_STORED) -> None:
    with Stack.open(address, allow_external, view) as stack:
        walk_sources(stack.dataset)
        carried(stack, scale=2)
        siblings = look_at_result(stack)
        walk_chunks(stack.dataset)
        read_images(stack.num_images, stack.dataset, stack.read_stored)
    for sibling in siblings:
        look_at_stack(str(sibling), allow_external)


def look_at_result(stack: Stack) -> list:
    """Read what swinmpi-evaluate reads of our own outputs; returns addresses of further stacks.

    What is merely wrong there is an error of whoever needs it.
    """
    with suppress(*DAMAGE, StackError):
        read_process(stack)
        find_failed(stack)
        regression = find_sibling(stack, "regression")
        return [] if regression in (None, stack.address) else [regression]
    return []


def look_at_pairs(path: str, allow_external: bool) -> None:
    with PairReader(path) as pairs:
        for dataset in (pairs.hr, pairs.lr):
            walk_chunks(dataset)
            read_images(pairs.num_images, dataset,
                        lambda index, dataset=dataset: pairs.read(dataset, index, ...))


def look_at_shard(path: str, allow_external: bool) -> None:
    shard = read_shard(Path(path))
    with open_file(Path(path)) as file:
        for item in file[DATA].values():
            if item.name.rpartition("/")[2] in shard.pixels:
                walk_chunks(item)
            else:
                item[()]


def walk_sources(dataset: h5py.Dataset, above: tuple[tuple[Path, str], ...] = ()) -> None:
    """Follow virtual datasets to their ends.

    StackError at a missing file, or where they lead back to themselves, which HDF5 would follow for
    ever. above: the datasets that led here.
    """
    path = Path(dataset.file.filename).resolve()
    if (path, dataset.name) in above:
        raise StackError(f"{path}::{dataset.name}: this virtual dataset leads back to itself; "
                         "write it again")
    if dataset.is_virtual:
        check_images_shown(dataset)
    check_raw_files(dataset)
    for source_path, name in virtual_sources(dataset):
        limit(source_path)
        with open_file(source_path) as file:
            source = file.get(name)
            check_source(dataset, source_path, name, source)
            if isinstance(source, h5py.Dataset):
                walk_sources(source, (*above, (path, dataset.name)))


def walk_chunks(dataset: h5py.Dataset) -> None:
    """Visit the whole chunk index.

    StackError at a chunk that is larger in the file than in memory: HDF5 would unpack it to its
    end, gigabytes of zeros perhaps.
    """
    if dataset.chunks is None:
        return
    num_chunks = dataset.id.get_num_chunks()
    limit(Path(dataset.file.filename), CPU_S_PER_CHUNK * num_chunks)
    most = 2 * math.prod(dataset.chunks) * dataset.dtype.itemsize + SMALL_CHUNK_BYTES
    if hasattr(dataset.id, "chunk_iter"):
        too_large = dataset.id.chunk_iter(lambda info: info if info.size > most else None)
    else:  # HDF5 before 1.12 looks for each chunk from the beginning
        infos = (dataset.id.get_chunk_info(number) for number in range(min(num_chunks, 1000)))
        too_large = next((info for info in infos if info.size > most), None)
    if too_large is not None:
        raise StackError(f"{dataset.file.filename}::{dataset.name}: one chunk takes "
                         f"{too_large.size} bytes, its pixels fewer; the file is damaged, "
                         "write it again")


def read_images(num_images: int, dataset: h5py.Dataset, read: Callable[[int], np.ndarray]) -> None:
    """Read images evenly over the stack; single ones may be unreadable.

    But not because they unpack to more memory than was granted: HDF5 doubles it until it is enough,
    and says no reason when it is not.
    """
    image_bytes = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    needed = 4 * image_bytes + 4 * math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    limit_memory(needed)
    most = used_bytes() + (needed + MEMORY_BYTES) // 4
    affordable = min(num_images, READ_IMAGES, max(2, READ_BYTES // image_bytes))
    for image_index in {round(index) for index in np.linspace(0, num_images - 1, affordable)}:
        try:
            read(image_index)
        except StackError as error:
            if used_bytes() > most:
                raise StackError(f"{error}; it unpacks to far more memory than its pixels"
                                 ) from None


def used_bytes() -> int:
    """The most memory that was in use up to now, 0 where there is no /proc.

    getrusage would count that of the parent as well.
    """
    status = Path("/proc/self/status")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) << 10 if status.exists() else 0


def limit(path: Path, more_s: float = 0) -> None:
    """Bound the processor time and memory of this process from now on."""
    try:
        size_gib = path.stat().st_size / 2**30
    except OSError:
        size_gib = 0
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    bound(resource.RLIMIT_CPU, int(used_s + CPU_S + CPU_S_PER_GIB * size_gib + more_s))
    limit_memory(0)


def limit_memory(images_bytes: int) -> None:
    """Let allocations fail beyond MEMORY_BYTES and those images, on top of what is mapped now.

    Only where Linux says what that is.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        bound(resource.RLIMIT_AS, mapped + MEMORY_BYTES + images_bytes)


def bound(kind: int, value: int) -> None:
    """Set a soft limit, as far as the site's hard one allows."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def say(**words) -> None:
    print(json.dumps(words), flush=True)
