"""Batches on the devices before they are wanted: a thread that stays two ahead."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from abaw_jax.errors import InputError
from abaw_jax.training.step import put_batch

PREFETCH = 2
# Resolution of the waiting time: how long `get` sleeps before it looks at the devices again.
POLL_SECONDS = 0.002


class Feed:
    """Global arrays from this process's parts of the batches; close it when done.

    waited: seconds in which `get` had nothing to give and the devices nothing to do.
    """

    def __init__(self, batches: Iterator[Any], mesh: Mesh, depth: int = PREFETCH):
        self.waited = 0.0
        self._queue: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(batches, mesh), name="feed", daemon=True
        )
        self._thread.start()

    def _work(self, batches: Iterator[Any], mesh: Mesh) -> None:
        shapes = None
        try:
            for batch in batches:
                found = jax.tree.map(lambda x: (x.shape, x.dtype), batch)
                shapes = found if shapes is None else shapes
                if found != shapes:
                    raise InputError(
                        f"input: a batch of {found} after one of {shapes}; expected batches of one "
                        "shape: drop or pad the last of an epoch"
                    )
                if not self._put(put_batch(batch, mesh)):
                    return
            raise InputError("input: the batches came to an end; expected an infinite iterator")
        # Whatever fails here is raised where the batch is wanted, in `get`.
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def get(self, busy: Callable[[], bool]) -> Any:
        """The next batch. While there is none, time counts as waited once busy() is False."""
        while True:
            start, idle = time.perf_counter(), self._queue.empty() and not busy()
            try:
                item = self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            finally:
                if idle:
                    self.waited += time.perf_counter() - start
            if isinstance(item, BaseException):
                raise item
            return item

    def close(self) -> None:
        """Stop the thread; batches that were made and not taken are dropped."""
        self._closed.set()
        self._thread.join(timeout=5)
