"""Random streams by name: a pure function of (seed, step, name)."""

import zlib
from collections.abc import Iterable

import jax

# Every stream a task may draw from. One that a task leaves alone costs nothing once compiled.
STREAMS = ("dropout", "drop_path", "mask", "mixup")


def stream_keys(
    seed: int, step: int | jax.Array, names: Iterable[str] = STREAMS
) -> dict[str, jax.Array]:
    """One key a name, the same whenever step `step` of a run with `seed` is reached.

    The name enters by its CRC-32, so that adding a stream changes none of the others.
    """
    key = jax.random.fold_in(jax.random.key(seed), step)
    return {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names}
