"""The memory of this process: how much it took at most, and keeping what was freed for the next
call of the network."""
import ctypes
import resource
import sys
from pathlib import Path

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM_BYTES, MMAP_BYTES = 128 << 20, 32 << 20


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks of up to 32 MiB instead of giving them back; False where the C
    library is another.

    A network frees and takes the same few MiB in every call. Given back each time, they come back
    as pages that the kernel has to clear first: up to an eighth of the time of a small network on
    the CPU. Larger arrays, images and features, are given back as ever.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
                                        and mallopt(M_TRIM_THRESHOLD, TRIM_BYTES))


def peak_memory_mib() -> float:
    """Largest resident size of this process since its start, or since `forget_peak_memory` where
    the system has that."""
    if STATUS.exists():
        kib = [line.split()[1] for line in STATUS.read_text().splitlines()
               if line.startswith("VmHWM")]
        if kib:
            return int(kib[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin"
                                                                 else 2**10)


def forget_peak_memory() -> None:
    """Let `peak_memory_mib` start again (Linux; elsewhere nothing happens)."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError:
        pass
