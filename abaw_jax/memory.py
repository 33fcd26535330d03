"""How glibc serves what XLA:CPU allocates."""

import os
import platform
import sys

# Huge pages where the kernel leaves it to the program; freed memory stays with the process and is
# used again (no mmap, no trimming below 16 GiB). One arena: a second, which threads share, cannot
# hold blocks over 64 MiB and maps those anew; without this limit nothing was gained.
TUNABLES = ":".join(
    [
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_max=0",
        "glibc.malloc.trim_threshold=17179869184",
        "glibc.malloc.arena_max=1",
    ]
)


def tune_malloc() -> None:
    """Start this program again, once, with `GLIBC_TUNABLES` that keep its memory.

    XLA:CPU asks for its scratch memory anew in every step. As glibc is set up, that is mapped and
    unmapped each time, and the kernel clears it in pages of 4 KiB: up to a third of the time of a
    ViT-S MAE's step on two cores (a ViT-B's gained nothing), and huge pages alone do not always
    help. A run may hold up to 1.4 times the memory for it. glibc reads its tunables before main, so
    they can only be set from outside. Does nothing but on Linux with glibc, and where
    GLIBC_TUNABLES is set already.
    """
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
        return
    sys.stdout.flush()
    environment = os.environ | {"GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
