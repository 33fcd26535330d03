"""Writes a demo corpus: idempotent, resumable, parallel over its parts."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import shutil
import threading
import time

import cv2
import tqdm

from abaw_jax.data.demo import clips, recordings, settings, singles, stills
from abaw_jax.data.demo.footage import PARTS
from abaw_jax.data.demo.plan import SHARED
from abaw_jax.errors import InputError
from abaw_jax.files import read_json, write_json

STAMP = "demo_corpus.json"  # written last: the corpus is whole
BEGUN = ".demo_corpus_begun.json"  # written first: whose unfinished corpus this is
# Corpus -> the modules that each plan, write and sum up parts of one kind.
CORPORA = {"expr": (recordings,), "ce": (recordings, stills, singles), "emi": (clips,)}


def generate(
    out: str | os.PathLike,
    size: str = "default",
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
    track: str = "expr",
) -> dict:
    """Write the demo corpus of a size and a seed to the folder `out`; return its summary.

    The same size, seed and track give the same crops, annotations, lists and transcripts; va, expr
    and au share one corpus. A corpus that is there already is left as it is; an interrupted one is
    finished, its whole parts kept. workers: processes, 1 = none beside the caller's. Raises
    InputError for an unknown size or track, and for a folder that holds anything else, another demo
    corpus included.
    """
    if size not in settings.SIZES:
        raise InputError(f"demo size {size!r}: expected one of {', '.join(settings.SIZES)}")
    if workers < 1 or seed < 0:
        raise InputError(f"demo workers {workers}, seed {seed}: expected at least 1 and 0")
    corpus = "expr" if track in SHARED else track
    if corpus not in CORPORA:
        known = ", ".join(dict.fromkeys((*SHARED, *CORPORA)))
        raise InputError(f"demo track {track!r}: expected one of {known}")
    out = pathlib.Path(out)
    identity = _identity(corpus, size, seed)
    if _finished(out, identity):
        return read_json(out / STAMP)
    started = time.monotonic()
    shutil.rmtree(out / PARTS, ignore_errors=True)
    write_json(out / BEGUN, identity)
    plans = {kind: kind.plan(size, seed, corpus) for kind in CORPORA[corpus]}
    jobs = [
        (kind.write, (os.fspath(out), seed, part))
        for kind, parts in plans.items()
        for part in parts
        if not kind.is_whole(out, part)
    ]
    with tqdm.tqdm(total=len(jobs), desc="demo corpus", unit="part", disable=not progress) as bar:
        for _ in _map(_write, jobs, workers):
            bar.update()
    summary = identity
    for kind, parts in plans.items():
        summary = summary | kind.finish(out, parts)
    summary = summary | {"seconds": round(time.monotonic() - started, 1)}
    shutil.rmtree(out / PARTS, ignore_errors=True)
    write_json(out / STAMP, summary)
    (out / BEGUN).unlink()
    return summary


def _write(job: tuple) -> str:
    """Call a module's `write` with a part."""
    write, part = job
    return write(part)


def _identity(corpus: str, size: str, seed: int) -> dict:
    """What a stamp says of whose files these are; the first corpus's names no track."""
    named = {} if corpus == "expr" else {"track": corpus}
    version = settings.VERSIONS[corpus]
    return {"corpus": "demo", **named, "size": size, "seed": seed, "version": version}


def _finished(out: pathlib.Path, identity: dict) -> bool:
    """Whether the corpus is there. Refuses a folder that holds something else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder, or a name that does not exist yet")
    for name in (STAMP, BEGUN):
        if (out / name).exists():
            keys = (*identity, "track")  # an identity without one does not fit a stamp with one
            found = {k: v for k, v in read_json(out / name).items() if k in keys}
            if found != identity:
                raise InputError(
                    f"{out / name}: holds the demo corpus {found}; expected {identity}; "
                    "name another folder or remove this one"
                )
            return name == STAMP
    # A process killed as it wrote its first file leaves that file's unfinished neighbour.
    if any(not path.name.startswith(f".{BEGUN}.") for path in out.iterdir()):
        raise InputError(
            f"{out}: holds files that are no demo corpus; expected an empty or a new folder"
        )
    return False


def _map(function, jobs: list, workers: int):
    """Results in order of completion, from processes or from this one."""
    if workers == 1 or len(jobs) < 2:
        yield from map(function, jobs)
        return
    # Spawned, not forked: the caller may run threads (JAX does), and a fork copies their locks.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(jobs)), context, initializer=_start_worker
    ) as pool:
        waiting = [pool.submit(function, job) for job in jobs]
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    """Keep OpenCV to one thread, the processes are the parallelism, and end with the caller."""
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_caller, daemon=True).start()


def _end_with_caller() -> None:
    """A caller that is killed cannot stop its workers, which would wait for jobs for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
