"""The program starts itself again once, with its arguments and the tunables."""

import os
import subprocess
import sys

PROGRAM = """
import os, sys
from abaw_jax.memory import tune_malloc
print("start", flush=True)
tune_malloc()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


def start(**environment):
    clean = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
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
