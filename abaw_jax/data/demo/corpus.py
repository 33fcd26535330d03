"""Writes a demo corpus: idempotent, resumable, parallel over recordings."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import shutil
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np
import tqdm

from abaw_jax.data.demo import layout, settings, sound
from abaw_jax.data.demo.camera import cover, draw_focus, draw_hidden, film
from abaw_jax.data.demo.container import write_container
from abaw_jax.data.demo.expressions import EXPRESSIONS
from abaw_jax.data.demo.face import draw_face
from abaw_jax.data.demo.people import Person, draw_person, draw_scene
from abaw_jax.data.demo.plan import Recording, Shown, plan_corpus
from abaw_jax.data.demo.story import Story, tell_story
from abaw_jax.data.demo.streams import stream, stretches
from abaw_jax.errors import InputError
from abaw_jax.files import read_json, write_json

STAMP = "demo_corpus.json"  # written last: the corpus is whole
BEGUN = ".demo_corpus_begun.json"  # written first: whose unfinished corpus this is
PARTS = ".demo_corpus_parts"  # unfinished crops


def generate(
    out: str | os.PathLike,
    size: str = "default",
    seed: int = 0,
    workers: int = 2,
    progress: bool = True,
) -> dict:
    """Write the demo corpus of a size and a seed to the folder `out`; return its summary.

    The same size and seed give the same crops, annotations, lists and transcripts. A corpus that
    is there already is left as it is; an interrupted one is finished, its whole videos kept.
    workers: processes, 1 = none beside the caller's. Raises InputError for an unknown size, and for
    a folder that holds anything else, another demo corpus included.
    """
    if size not in settings.SIZES:
        raise InputError(f"demo size {size!r}: expected one of {', '.join(settings.SIZES)}")
    if workers < 1 or seed < 0:
        raise InputError(f"demo workers {workers}, seed {seed}: expected at least 1 and 0")
    out = pathlib.Path(out)
    identity = {"corpus": "demo", "size": size, "seed": seed, "version": settings.VERSION}
    if _finished(out, identity):
        return read_json(out / STAMP)
    started = time.monotonic()
    shutil.rmtree(out / PARTS, ignore_errors=True)
    write_json(out / BEGUN, identity)
    recordings = plan_corpus(size, seed)
    waiting = [r for r in recordings if not _whole(out, r)]
    jobs = [(os.fspath(out), seed, recording) for recording in waiting]
    bar = tqdm.tqdm(total=len(jobs), desc="demo corpus", unit="recording", disable=not progress)
    with bar:
        for _ in _map(_record, jobs, workers):
            bar.update()
    layout.write_lists(out, recordings)
    summary = identity | _count(out, recordings) | {"seconds": round(time.monotonic() - started, 1)}
    shutil.rmtree(out / PARTS, ignore_errors=True)
    write_json(out / STAMP, summary)
    (out / BEGUN).unlink()
    return summary


def _finished(out: pathlib.Path, identity: dict) -> bool:
    """Whether the corpus is there. Refuses a folder that holds something else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise InputError(f"{out}: is a file; expected a folder, or a name that does not exist yet")
    for name in (STAMP, BEGUN):
        if (out / name).exists():
            found = {key: read_json(out / name).get(key) for key in identity}
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


def _whole(out: pathlib.Path, recording: Recording) -> bool:
    """Crop folders are renamed into place last, so they stand for all files of a recording."""
    return all((out / recording.root / video.name).is_dir() for video in recording.shown)


@dataclass(frozen=True)
class _Filmed:
    """What one person of a recording leaves: pictures for the container, the voice, the story."""

    pictures: np.ndarray
    voice: np.ndarray
    story: Story
    room: float


def _record(job: tuple[str, int, Recording]) -> str:
    """Draw and write one recording: containers, transcripts, annotations, then crops."""
    out, seed, recording = pathlib.Path(job[0]), job[1], job[2]
    filmed = [_film_person(out, seed, recording, video) for video in recording.shown]
    rng = stream(seed, "recording", recording.name)
    voices = sound.mix(rng, [f.voice for f in filmed], filmed[0].room)
    if recording.sound == "silent":
        voices = np.zeros_like(voices)
    container = out / recording.batch / f"{recording.name}.{recording.ending}"
    container.parent.mkdir(parents=True, exist_ok=True)
    write_container(
        container,
        np.concatenate([f.pictures for f in filmed], axis=2),
        recording.rate,
        None if recording.sound == "none" else voices,
    )
    for video, film_of in zip(recording.shown, filmed, strict=True):
        rng = stream(seed, "annotation", video.name)
        heard = recording.sound == "voice"
        text = sound.transcribe(rng, film_of.story) if heard else ""
        layout.write_text(out / "transcripts" / f"{video.name}.txt", [text] if text else [])
        layout.write_annotations(out, rng, recording.split, video, film_of.story)
    for video in recording.shown:
        place = out / recording.root / video.name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            os.rename(out / PARTS / video.name, place)
    return recording.name


def tell_video(seed: int, recording: Recording, video: Shown) -> tuple[Person, Story]:
    """The person and the story of a video: what its files are made from."""
    person = draw_person(stream(seed, "person", video.person))
    rng = stream(seed, "story", video.name)
    return person, tell_story(rng, person, recording.frames, video.themes)


def _film_person(out: pathlib.Path, seed: int, recording: Recording, video: Shown) -> _Filmed:
    """Draw all frames of one person, and write the crops of those whose face is found."""
    person, story = tell_video(seed, recording, video)
    rng = stream(seed, "film", video.name)
    scene = draw_scene(rng)
    frames = recording.frames
    things, focus = draw_hidden(rng, frames), draw_focus(rng, frames)
    missed = _missed(rng, frames, video.late)
    folder = out / PARTS / video.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    side = settings.THUMBNAIL
    pictures = np.empty((frames, side, side, 3), np.uint8)
    age = 0
    for i in range(frames):
        crop = draw_face(
            person, scene, story.shown[i], story.pose[i], story.gaze[i], story.blink[i]
        )
        age = age + 1 if i and things[i] is things[i - 1] else 0
        crop = cover(crop, things[i], person, age)
        crop, data = film(rng, crop, scene, float(focus[i]))
        pictures[i] = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        if not missed[i]:
            (folder / f"{i + 1:05d}.jpg").write_bytes(data)
    voice = sound.speak(stream(seed, "voice", video.name), person, story, float(recording.rate))
    return _Filmed(pictures, voice, story, scene.room)


def _missed(rng: np.random.Generator, frames: int, late: int) -> np.ndarray:
    """Frames without a crop: bool (frames,). Long gaps, single ones, and a late start."""
    share = settings.GAP_SHARE
    missed = stretches(rng, frames, 0.7 * share, (2, 12)) > 0
    missed |= rng.random(frames) < 0.3 * share
    missed[:late] = True
    missed[late] = False
    return missed


def _count(out: pathlib.Path, recordings: list[Recording]) -> dict:
    """What was written: videos, crops, valid EXPR rows by class, per split."""
    counts = {}
    for recording in recordings:
        part = counts.setdefault(
            recording.split, {"videos": 0, "crops": 0, "classes": dict.fromkeys(EXPRESSIONS, 0)}
        )
        for video in recording.shown:
            part["videos"] += 1
            crops = os.listdir(out / recording.root / video.name)
            part["crops"] += sum(not name.startswith(".") for name in crops)
            root = layout.TRUTH if recording.split == "test" else layout.ANNOTATIONS
            folder = out / root / layout.TASKS["EXPR"][0] / layout.FOLDERS[recording.split]
            for row in (folder / f"{video.name}.txt").read_text().splitlines()[1:]:
                if row != "-1":
                    part["classes"][EXPRESSIONS[int(row)]] += 1
    return {"recordings": len(recordings), "splits": counts}
