"""How glibc serves what XLA:CPU allocates."""

import ctypes
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
ROOM = 2**30  # bytes; 2**28 was not enough for what compilation leaves


def tune_malloc() -> None:
    """Start this program again, once, with `GLIBC_TUNABLES` that keep its memory, and leave room
    for small blocks.

    XLA:CPU asks for its scratch memory anew in every step. As glibc is set up, that is mapped and
    unmapped each time, and the kernel clears it in pages of 4 KiB: up to a third of the time of a
    ViT-S MAE's step on two cores (a ViT-B's gained nothing), and huge pages alone do not always
    help. glibc reads its tunables before main, so they can only be set from outside. Does nothing
    but on Linux with glibc, and where GLIBC_TUNABLES is set already to other values.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    if (found := os.environ.get("GLIBC_TUNABLES")) is None:
        sys.stdout.flush()
        environment = os.environ | {"GLIBC_TUNABLES": TUNABLES}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    if found == TUNABLES:
        leave_room()


def trim() -> None:
    """Give the memory of free blocks back to the kernel, wherever in the heap they lie.

    After a compilation, of which some hundred MiB are left that little ever uses again. Does
    nothing but on Linux with glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def leave_room(size: int = ROOM) -> None:
    """Leave a free block of `size` bytes in the heap, of no memory until it is used.

    A small block is cut from the smallest free one that holds it. Without this one that may be what
    the last step's scratch memory has left: the next step's does not fit there any more, and the
    process comes to hold it twice. In training `mae_transformer`'s sequence model at paper scale,
    where it is larger than this block, that was 7.1 GiB in place of 4.0.
    """
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    room = libc.malloc(size)
    # For good, as at its end the heap would take the room back. A small block might lie elsewhere;
    # of this one, too, nothing is memory.
    libc.malloc(size)
    libc.free(room)
