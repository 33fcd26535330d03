"""How the program keeps memory, leaves room and gives back: each in a process of its own."""

import os
import subprocess
import sys

import pytest

from abaw_jax.memory import TUNABLES

PROGRAM = """
import os, sys
from abaw_jax.memory import tune_malloc
print("start", flush=True)
tune_malloc()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


def start(**environment):
    clean = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, "a", "b c"],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.splitlines()


def test_starts_again_once():
    lines = start()
    assert lines[:2] == ["start", "start"]
    assert "glibc.malloc.hugetlb=1" in lines[2] and lines[2].endswith("['a', 'b c']")


def test_leaves_given_tunables_alone():
    assert start(GLIBC_TUNABLES="glibc.malloc.perturb=0") == [
        "start",
        "glibc.malloc.perturb=0 ['a', 'b c']",
    ]


HEAP = """
import ctypes
from abaw_jax.memory import trim
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
used = libc.malloc(200 << 20)
ctypes.memset(used, 1, 200 << 20)
libc.malloc(1 << 20)  # what lasts lies behind it
libc.free(used)
trim()
now = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(int(now.split()[1]) // 1024)
"""


def test_gives_back_what_is_free_inside_the_heap():
    run = subprocess.run(
        [sys.executable, "-c", HEAP],
        env=os.environ | {"GLIBC_TUNABLES": TUNABLES},
        capture_output=True,
        check=True,
    )
    assert int(run.stdout) < 100


STEPS = """
import ctypes, sys
from abaw_jax.memory import leave_room
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1:]:
    leave_room(100 << 20)
for step in range(4):
    scratch = libc.malloc(200 << 20)
    ctypes.memset(scratch, 1, 200 << 20)
    libc.malloc(1 << 20)  # what lasts lies behind the scratch memory
    libc.free(scratch)
    libc.malloc(100_000)  # is cut from the smallest free block
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.parametrize(("room", "times"), [((), 2), (("room",), 1)])
def test_scratch_memory_is_held_once_where_room_is_left(room, times):
    run = subprocess.run(
        [sys.executable, "-c", STEPS, *room],
        env=os.environ | {"GLIBC_TUNABLES": TUNABLES},
        capture_output=True,
        check=True,
    )
    assert 200 * times < int(run.stdout) < 200 * times + 100
