"""Clips of EMI in Hume-Vidmimic2's layout: tables, faces, sound, transcripts.

The features and the videos themselves, which the organisers supply too, are left out; transcripts
and the test set's labels, which they do not supply, are added.
"""

import os
import pathlib

import numpy as np

from abaw_jax.data.demo import settings, sound
from abaw_jax.data.demo.container import write_sound
from abaw_jax.data.demo.footage import new_folder, put, shoot
from abaw_jax.data.demo.layout import TRUTH, hide, write_text
from abaw_jax.data.demo.mimicry import EMOTIONS, tell_clip, transcribe_clip
from abaw_jax.data.demo.people import draw_person, draw_scene
from abaw_jax.data.demo.plan import SPLITS, Clip, plan_clips
from abaw_jax.data.demo.streams import stream

TEST = "test"  # folder of the test clips' faces, sound and transcripts
HEADER = ",".join(("Filename", *EMOTIONS))
EXAMPLE = "test_split.csv"  # names the test clips and is the example of a submission


def plan(size: str, seed: int, corpus: str) -> list[Clip]:
    """All clips, by their numbers; `corpus` can be emi alone."""
    del corpus
    return plan_clips(size, seed)


def _files(out: pathlib.Path, clip: Clip) -> dict[str, pathlib.Path]:
    """Where a clip's files lie: those that it is to have, the one written last at the end."""
    root = out / TEST if clip.split == "test" else out
    files = {}
    if clip.sound != "none":
        files["audio"] = root / "audio" / f"{clip.name}.mp3"
        files["transcript"] = root / "transcripts" / f"{clip.name}.txt"
    if clip.faces != "absent":
        files["faces"] = root / "face_images" / clip.name
    return files


def is_whole(out: pathlib.Path, clip: Clip) -> bool:
    """Whether the last of a clip's files is there."""
    return list(_files(out, clip).values())[-1].exists()


def write(job: tuple[str, int, Clip]) -> str:
    """Draw and write one clip: sound, transcript, then faces."""
    out, seed, clip = pathlib.Path(job[0]), job[1], job[2]
    files = _files(out, clip)
    person = draw_person(stream(seed, "person", clip.person))
    story = tell_clip(stream(seed, "clip", clip.name), person, clip.frames, clip.shares)
    film = stream(seed, "film", clip.name)
    scene = draw_scene(film)
    if "audio" in files:
        rng = stream(seed, "voice", clip.name)
        voice = sound.speak(rng, person, story, settings.CLIP_RATE)
        heard = clip.sound == "voice"
        samples = sound.mix(rng, [voice], scene.room) * heard
        write_sound(files["audio"], samples)
        text = transcribe_clip(rng, story, clip.shares) if heard else ""
        write_text(files["transcript"], [text] if text else [])
    if "faces" in files:
        folder = new_folder(out, clip.name)
        if clip.faces == "some":
            for number, (_, data) in enumerate(shoot(film, person, scene, story), start=1):
                if data:
                    (folder / f"{number}.jpg").write_bytes(data)
        put(out, clip.name, files["faces"])
    return clip.name


def finish(out: pathlib.Path, clips: list[Clip]) -> dict:
    """Write the tables. What there is: clips, crops, the mean share of each emotion, per split."""
    splits = {name: [clip for clip in clips if clip.split == name] for name in SPLITS}
    write_text(out / "train_split.csv", [HEADER, *_rows(splits["train"])])
    # Numbers are padded in one table alone, and the case of headers varies.
    padded = _rows(splits["validation"], digits=5)
    write_text(out / "valid_split.csv", [HEADER.lower(), *padded])
    unlabelled = [f"{int(clip.name)}{',0' * len(EMOTIONS)}" for clip in splits["test"]]
    write_text(out / EXAMPLE, [HEADER, *unlabelled])
    write_text(out / TRUTH / EXAMPLE, [HEADER, *_rows(splits["test"])])
    hide(out / "face_images")
    return {"splits": {name: _count(out, part) for name, part in splits.items()}}


def _rows(clips: list[Clip], digits: int = 1) -> list[str]:
    """Rows of a table of labels: `7,0.333,0,0,0.667,0,0`."""
    return [
        f"{int(clip.name):0{digits}d}," + ",".join(f"{share:g}" for share in clip.shares)
        for clip in clips
    ]


def _count(out: pathlib.Path, clips: list[Clip]) -> dict:
    """Clips, crops and mean shares of a split."""
    folders = [_files(out, clip).get("faces") for clip in clips]
    means = np.mean([clip.shares for clip in clips], axis=0)
    return {
        "clips": len(clips),
        "crops": sum(len(os.listdir(folder)) for folder in folders if folder),
        "mean_shares": {name: round(float(m), 4) for name, m in zip(EMOTIONS, means, strict=True)},
    }
