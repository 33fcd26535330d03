"""Stage `prepare`: corpora in their published layouts -> records.

Makes prepare/records (the corpus) and prepare/images/<name> (each further image set). Where the
config names no corpus, the track's demo corpus is drawn first, into prepare/demo, in the layout of
the corpus that the config is of, and then read as any such tree is.

The keys of the section `corpus` are those of the reader of its `kind`, beside OWN. Where it names
a table of persons, prepare/persons.json keeps what that says of training and validation videos.
"""

import dataclasses
import itertools
import pathlib
from typing import Any

from abaw_jax.data.cleaning import Cleaning
from abaw_jax.data.corpora import read_corpus, takes
from abaw_jax.data.demo import generate
from abaw_jax.data.records import IMAGE_SET, Split, load_index, write_corpus
from abaw_jax.errors import InputError
from abaw_jax.evaluation.confidence import check_apart
from abaw_jax.evaluation.folds import read_mapping
from abaw_jax.files import disk_state, read_json, write_json
from abaw_jax.recipe import Context
from abaw_jax.tracks.track import Track

OWN = ("kind", "root", "demo_size", "max_damaged", "persons", "clean")
# Paths in the section `corpus`: of label files or folders of them, and folders of images.
FILES = (
    "annotations", "test_list", "test_example", "train_table", "validation_table", "test_table",
    "images", "singles", "videos",
)  # fmt: skip
FOLDERS = ("image_roots", "face_images")
LISTS = ("*.csv", "*/*.csv", "*.txt", "*/*.txt")  # of labels, below the root of an image set
PERSONS = "persons.json"


def inputs(context: Context) -> dict[str, str]:
    """Hash of what lies where the config points, by path, so that a change is noticed.

    Of label files the times are looked at one by one, of images only those of their folders (two
    levels of them), which change as files come and go: a glance at 600 folders, not at three
    million files.
    """
    config = context.config
    section = config.corpus.to_dict()
    corpus = located(section) if section["root"] else {}
    state = {}
    for key in FOLDERS:
        state |= {path: disk_state(path, files=False) for path in corpus.get(key, ())}
    for key in FILES:
        if corpus.get(key):
            state[corpus[key]] = disk_state(corpus[key], files=True)
    if section["root"] and takes(section["kind"], "root"):
        state[section["root"]] = disk_state(section["root"], files=False)
        lists = itertools.chain(*map(pathlib.Path(section["root"]).glob, LISTS))
        state |= {str(path): disk_state(path, files=True) for path in lists}
    if path := _persons_path(context):
        state[str(path)] = disk_state(path, files=True)
    for section in image_sets(context).values():
        for key in ("root", "path", "votes"):
            if section.get(key):
                state[section[key]] = disk_state(section[key], files=False)
    return state


def image_sets(context: Context) -> dict[str, dict]:
    """The sections of `pretrain.corpora`. Raises InputError for one that names no kind."""
    sections = context.config.pretrain.corpora.to_dict()
    for name, section in sections.items():
        if not isinstance(section, dict) or "kind" not in section:
            raise InputError(
                f"config.pretrain.corpora.{name}: {section!r}; expected {{'kind': ..., ...}}, as "
                "docs/data.md has them"
            )
    return sections


def run(context: Context) -> dict:
    """Write the records of every corpus the config names; what is written already is kept.

    Raises InputError for a person on both sides, and as the readers do.
    """
    folder, path = context.folder("prepare"), _persons_path(context)
    persons = read_mapping(path, "person") if path else {}
    corpus = context.config.corpus.to_dict()
    if not corpus["root"] and corpus["demo_size"]:
        corpus["root"] = str(folder / "demo")
        # Of one seed: all runs are on one corpus.
        generate(folder / "demo", corpus["demo_size"], track=context.track.key)
    splits = read_corpus(corpus["kind"], **reader_arguments(corpus, context.track))
    splits = [_with_names(split) for split in splits]
    lacking = {"train", "validation"} - {split.name for split in splits}
    if lacking:
        raise InputError(
            f"{located(corpus).get('annotations', corpus['root'])}: has no "
            f"{' and no '.join(sorted(lacking))} set; expected both: add the folder of its label "
            "files"
        )
    videos = {s.name: [v.name for v in s.videos] for s in splits if s.name != "test"}
    if persons:
        check_apart(videos, persons, str(path))
    # All is read before anything is written: a path that is wrong shows at once.
    sets = {}
    for name, section in image_sets(context).items():
        keys = {key: value for key, value in section.items() if key != "max_damaged"}
        sets[name] = read_corpus(**keys), _damage_limit(corpus | section)
    limit = _damage_limit(corpus)
    summary = write_corpus(
        folder / "records", corpus["kind"], splits, max_damaged=limit, clean=make_cleaning(corpus)
    )
    for name, (images, limit) in sets.items():
        write_corpus(folder / "images" / name, name, images, max_damaged=limit)
    indices = {split: load_index(folder / "records", split) for split in summary["splits"]}
    content: list[Any] = [index.content_hash() for index in indices.values()]
    if persons:
        content.append({name: persons[name] for names in videos.values() for name in names})
        write_json(folder / PERSONS, content[-1])
    images = {f"{split}_images": len(index.frames) for split, index in indices.items()}
    return {
        "metrics": images | _left_out(summary),
        "samples": sum(len(index.frames) for index in indices.values()),
        "content": content,
    }


def _with_names(split: Split) -> Split:
    """A split whose images, where they are of no video, are one that files can be named by."""
    videos = [v if v.name else dataclasses.replace(v, name=IMAGE_SET) for v in split.videos]
    return dataclasses.replace(split, videos=videos)


def _persons_path(context: Context) -> pathlib.Path | None:
    """The table of persons, below `root` unless absolute; None where the config names none."""
    corpus = context.config.corpus
    return pathlib.Path(corpus.root) / corpus.persons if corpus.get("persons") else None


def read_persons(context: Context) -> dict[str, str] | None:
    """Video -> person, of the training and the validation set as they were prepared; None where
    the config names no persons."""
    return read_json(context.folder("prepare") / PERSONS) if _persons_path(context) else None


def make_cleaning(corpus: Any) -> Cleaning:
    """What the corpus section asks of a training crop, where it has a part `clean`."""
    return Cleaning(**corpus.get("clean", {}))


def _left_out(summary: dict) -> dict[str, int]:
    """How many training crops were left out, by reason; {} where nothing is cleaned."""
    part = summary["splits"]["train"]
    if "cleaned_images" not in part:
        return {}
    counts = {"unreadable": part["damaged_images"], **part["cleaned_images"]}
    return {f"train_cleaned_{reason}": count for reason, count in counts.items()}


def _damage_limit(section: dict) -> int | float:
    """`max_damaged`: a share below 1, a count from 1 up."""
    limit = section["max_damaged"]
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise InputError(f"max_damaged: {limit!r}; expected a share such as 0.01, or a count")
    return limit if limit < 1 else int(limit)


def reader_arguments(corpus: dict, track: Track) -> dict:
    """What the corpus section tells the reader of its kind; the track, if it reads several, and
    the root, if it finds all below it."""
    kind = corpus["kind"]
    further = {"task": track.name, "root": corpus["root"]}
    left = OWN if takes(kind, "also") else (*OWN, "also")  # others read all the labels they have
    given = {k: v for k, v in corpus.items() if k not in left} | located(corpus)
    return given | {key: value for key, value in further.items() if takes(kind, key)}


def located(corpus: dict) -> dict:
    """The corpus section's paths, below `root` unless absolute or empty."""
    if not corpus["root"]:
        raise InputError(
            "config.corpus.root is empty: name the folder that holds the corpus "
            "(--config.corpus.root=DIR)"
        )
    root = pathlib.Path(corpus["root"])
    folders = {key: [str(root / path) for path in corpus[key]] for key in FOLDERS if key in corpus}
    files = {key: str(root / corpus[key]) if corpus[key] else "" for key in FILES if key in corpus}
    return folders | files


def corpus_root(context: Context) -> pathlib.Path:
    """The folder of the corpus that was prepared."""
    return pathlib.Path(context.config.corpus.root or context.folder("prepare") / "demo")


def test_example(context: Context) -> str:
    """The submission example file of the corpus that was prepared, "" if it has none."""
    example = context.config.corpus.get("test_example")
    return str(corpus_root(context) / example) if example else ""
