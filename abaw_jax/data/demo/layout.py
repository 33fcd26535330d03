"""Annotation, list and template files of the demo corpus, in the layout of Aff-Wild2 and C-EXPR-DB.

C-EXPR-DB itself has no labels; the demo's are annotated as EXPR's videos are.
"""

import pathlib

import numpy as np

from abaw_jax.data.demo import settings
from abaw_jax.data.demo.expressions import COMPOUND, COMPOUNDS, EXPRESSIONS
from abaw_jax.data.demo.people import AUS
from abaw_jax.data.demo.plan import ROOTS, Recording, Shown
from abaw_jax.data.demo.story import Story
from abaw_jax.data.demo.streams import stretches
from abaw_jax.files import atomic_write

ANNOTATIONS = "6th ABAW Annotations"
MULTI_TASK = "MTL Annotations"
TRUTH = "test_truth"  # what a real test set keeps back; outside the annotation folder
TASKS = {
    "VA": ("VA_Estimation_Challenge", "valence,arousal"),
    "EXPR": ("EXPR_Recognition_Challenge", ",".join(EXPRESSIONS)),
    "AU": ("AU_Detection_Challenge", ",".join(f"AU{unit}" for unit in AUS)),
    "CE": ("CE_Recognition_Challenge", ",".join(COMPOUNDS)),
}
FOLDERS = {"train": "Train_Set", "validation": "Validation_Set", "test": "Test_Set"}
LISTS = {
    "VA": "Valence_Arousal_Estimation_Challenge_test_set_release.txt",
    "EXPR": "Expression_Recognition_Challenge_test_set_release.txt",
    "AU": "Action_Unit_Detection_Challenge_test_set_release.txt",
    "CE": "Compound_Expression_Recognition_Challenge_test_set_release.txt",
}
EXAMPLES = {
    "VA": ("CVPR_6th_ABAW_VA_test_set_example.txt", ",0.0,0.0"),
    "EXPR": ("CVPR_6th_ABAW_Expr_test_set_example.txt", ",0"),
    "AU": ("CVPR_6th_ABAW_AU_test_set_example.txt", ",0" * len(AUS)),
    "CE": ("CVPR_6th_ABAW_CE_test_set_example.txt", ",0"),
}
# s-Aff-Wild2's files, of the same labels: 5 names above 16 columns.
MULTI_TASK_FILES = {
    "train": "training_set_annotations.txt",
    "validation": "validation_set_annotations.txt",
}
MULTI_TASK_HEADER = "image,valence,arousal,expression,aus"
PRESENT = 0.3  # intensity from which a coder calls an action unit present


def write_text(path: pathlib.Path, lines: list[str]) -> None:
    """Write lines, whole or not at all."""
    with atomic_write(path, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))


def annotation_rows(
    rng: np.random.Generator, story: Story, rows: int, complete: bool = False
) -> dict[str, list[str]]:
    """Rows of a video's three files: task -> lines under the header.

    Rows beyond the frames repeat the last. Some stretches are invalid: -1 (none, if `complete`), -5
    in one column or both, and -1 in some or all units.
    """
    at = np.minimum(np.arange(rows), len(story.labels) - 1)
    labels = story.labels[at].copy()
    affect = np.round(np.stack([story.valence, story.arousal], axis=1)[at], 3)
    present = (story.expressed[at] > PRESENT).astype(int)
    share, span = settings.INVALID_SHARE, (2, 9)
    undecided = stretches(rng, rows, share, span) > 0
    if not complete:
        labels[undecided] = -1
    for column in (0, 1):
        affect[stretches(rng, rows, share / 2, span) > 0, column] = -5
    affect[stretches(rng, rows, share / 2, span) > 0] = -5
    present[stretches(rng, rows, share / 2, span) > 0] = -1
    present[stretches(rng, rows, share / 2, span) > 0, rng.integers(len(AUS))] = -1
    return {
        "VA": [f"{v:g},{a:g}" for v, a in affect],
        "EXPR": [str(label) for label in labels],
        "AU": [",".join(map(str, row)) for row in present],
    }


def compound_rows(
    rng: np.random.Generator, story: Story, rows: int, complete: bool = False
) -> dict[str, list[str]]:
    """The same of CE's one file: 0 to 6, and -1 where no compound is shown."""
    at = np.minimum(np.arange(rows), len(story.labels) - 1)
    labels = np.maximum(story.labels[at] - COMPOUND, -1)
    if not complete:
        labels[stretches(rng, rows, settings.INVALID_SHARE, (2, 9)) > 0] = -1
    return {"CE": [str(label) for label in labels]}


def write_annotations(
    out: pathlib.Path, rng: np.random.Generator, recording: Recording, video: Shown, story: Story
) -> None:
    """A video's annotation files; those of test videos go to TRUTH, every expression decided."""
    split = recording.split
    root = out / (TRUTH if split == "test" else ANNOTATIONS)
    rows_of = compound_rows if recording.tasks == ("CE",) else annotation_rows
    for task, lines in rows_of(rng, story, video.rows, complete=split == "test").items():
        folder, header = TASKS[task]
        write_text(root / folder / FOLDERS[split] / f"{video.name}.txt", [header, *lines])


def read_annotations(out: pathlib.Path, task: str, recording: Recording, video: Shown) -> list[str]:
    """The rows of a video's annotation file, as `write_annotations` left it."""
    root = out / (TRUTH if recording.split == "test" else ANNOTATIONS)
    path = root / TASKS[task][0] / FOLDERS[recording.split] / f"{video.name}.txt"
    return path.read_text(encoding="utf-8").splitlines()[1:]


def write_multi_task(out: pathlib.Path, recordings: list[Recording]) -> None:
    """The multi-task challenge's files: a row for each crop that the annotation files reach.

    Made of the files, not of the stories, so that no stream is drawn from.
    """
    for split, name in MULTI_TASK_FILES.items():
        videos = [(r, video) for r in recordings if r.split == split for video in r.shown]
        rows = [row for recording, video in videos for row in _image_rows(out, recording, video)]
        write_text(out / MULTI_TASK / name, [MULTI_TASK_HEADER, *rows])


def _image_rows(out: pathlib.Path, recording: Recording, video: Shown) -> list[str]:
    """Of each crop: its path, then valence, arousal, expression and action units."""
    columns = [read_annotations(out, task, recording, video) for task in recording.tasks]
    rows = [",".join(labels) for labels in zip(*columns, strict=True)]
    crops = sorted(path.name for path in (out / recording.root / video.name).glob("[!.]*.jpg"))
    numbered = [(crop, int(crop.removesuffix(".jpg"))) for crop in crops]
    return [f"{video.name}/{crop},{rows[n - 1]}" for crop, n in numbered if n <= len(rows)]


def write_lists(out: pathlib.Path, recordings: list[Recording]) -> None:
    """Test lists (no header), submission templates and the hidden files macOS leaves."""
    videos = [v for r in recordings if r.split == "test" for v in r.shown]
    for task in recordings[0].tasks:
        folder, header = TASKS[task]
        names = out / "names_of_videos_in_each_test_set" / LISTS[task]
        write_text(names, [video.name for video in videos])
        example, fill = EXAMPLES[task]
        lines = [
            f"{video.name}/{frame:05d}.jpg{fill}"
            for video in videos
            for frame in range(1, video.rows + 1)
        ]
        write_text(
            out / "test_set_examples" / example, [f"image_location,{header.strip()}", *lines]
        )
        for split in ("Train_Set", "Validation_Set"):
            hide(out / ANNOTATIONS / folder / split)
    for root in ROOTS:
        hide(out / root)
    first = recordings[0].shown[0].name
    with atomic_write(out / recordings[0].root / first / "._00001.jpg") as file:
        file.write(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")


def hide(folder: pathlib.Path) -> None:
    """Leave `.DS_Store` and a resource fork `._x` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    name = next((p.name for p in sorted(folder.iterdir()) if not p.name.startswith(".")), "x")
    with atomic_write(folder / ".DS_Store") as file:
        file.write(b"\x00\x00\x00\x01Bud1")
    with atomic_write(folder / f"._{name}") as file:
        file.write(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
