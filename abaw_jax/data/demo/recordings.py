"""Recordings of VA, EXPR, AU and CE: containers, transcripts, annotations, crops."""

import os
import pathlib
from dataclasses import dataclass

import cv2
import numpy as np

from abaw_jax.data.demo import layout, settings, sound
from abaw_jax.data.demo.container import write_container
from abaw_jax.data.demo.expressions import COMPOUNDS, EXPRESSIONS
from abaw_jax.data.demo.footage import new_folder, put, shoot
from abaw_jax.data.demo.people import Person, draw_person, draw_scene
from abaw_jax.data.demo.plan import Recording, Shown, plan_corpus
from abaw_jax.data.demo.story import Story, tell_story
from abaw_jax.data.demo.streams import stream

plan = plan_corpus


def is_whole(out: pathlib.Path, recording: Recording) -> bool:
    """Crop folders are renamed into place last, so they stand for all files of a recording."""
    return all((out / recording.root / video.name).is_dir() for video in recording.shown)


@dataclass(frozen=True)
class _Filmed:
    """What one person of a recording leaves: pictures for the container, the voice, the story."""

    pictures: np.ndarray
    voice: np.ndarray
    story: Story
    room: float


def write(job: tuple[str, int, Recording]) -> str:
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
        # From the stream of the annotations: what is silent decides which rows are undecided.
        text = sound.transcribe(rng, film_of.story) if heard else ""
        layout.write_text(out / "transcripts" / f"{video.name}.txt", [text] if text else [])
        layout.write_annotations(out, rng, recording, video, film_of.story)
    for video in recording.shown:
        put(out, video.name, out / recording.root / video.name)
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
    folder = new_folder(out, video.name)
    side = settings.THUMBNAIL
    pictures = []
    for number, (crop, data) in enumerate(shoot(rng, person, scene, story, video.late), start=1):
        pictures.append(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA))
        if data:
            (folder / f"{number:05d}.jpg").write_bytes(data)
    rate = float(recording.rate)
    voice = sound.speak(stream(seed, "voice", video.name), person, story, rate)
    voice += sound.breathe(stream(seed, "breath", video.name), story, rate)
    return _Filmed(np.stack(pictures), voice, story, scene.room)


def finish(out: pathlib.Path, recordings: list[Recording]) -> dict:
    """Write the lists and the multi-task files. What there is, per split: videos, crops, valid rows
    by class."""
    layout.write_lists(out, recordings)
    task, classes = "EXPR", EXPRESSIONS
    if task not in recordings[0].tasks:
        task, classes = "CE", tuple(COMPOUNDS)
    else:
        layout.write_multi_task(out, recordings)
    counts = {}
    for recording in recordings:
        part = counts.setdefault(
            recording.split, {"videos": 0, "crops": 0, "classes": dict.fromkeys(classes, 0)}
        )
        for video in recording.shown:
            part["videos"] += 1
            crops = os.listdir(out / recording.root / video.name)
            part["crops"] += sum(not name.startswith(".") for name in crops)
            for row in layout.read_annotations(out, task, recording, video):
                if row != "-1":
                    part["classes"][classes[int(row)]] += 1
    return {"recordings": len(recordings), "splits": counts}
