"""Huge pages for what XLA:CPU allocates."""

import os
import platform
import sys

# Huge pages where the kernel leaves it to the program. Keeping freed memory mapped as well
# (mmap_max=0, arena_max=1) is some percent faster yet, but doubles the memory a run needs.
TUNABLES = "glibc.malloc.hugetlb=1"


def use_huge_pages() -> None:
    """Start this program again, once, with `GLIBC_TUNABLES` that ask for huge pages.

    XLA:CPU asks for its scratch memory anew in every step; glibc maps and unmaps it each time, and
    the kernel hands it out in pages of 4 KiB: a third of the processor time of a small ViT's step.
    glibc reads its tunables before main, so they can only be set from outside. Does nothing but on
    Linux with glibc, and where GLIBC_TUNABLES is set already.
    """
    if platform.libc_ver()[0] != "glibc" or "GLIBC_TUNABLES" in os.environ:
        return
    sys.stdout.flush()
    environment = os.environ | {"GLIBC_TUNABLES": TUNABLES}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
