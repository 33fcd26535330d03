"""RAF-DB, basic expressions: aligned faces and one list of labels.

Source: Li, Deng and Du, "Reliable crowdsourcing and deep locality-preserving learning for
expression recognition in the wild", CVPR 2017.
"""

import os

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError
from abaw_jax.tracks.annotations import read_lines

CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")  # 1..7
LISTS = ("list_patition_label.txt", "list_partition_label.txt")  # the first as published (sic)


def read(root: str | os.PathLike) -> list[Split]:
    """Read `aligned/{train,test}_00001_aligned.jpg` and the list of labels.

    Both are looked for in `root` and one level where the archive puts them (`Image/aligned`,
    `EmoLabel/`). The list's train images are the training split, its test images the test split.

    Raises:
      InputError: no such folder or list; a row that is no `name label`, of a class outside 1..7,
        named twice or without its image (with the list's line).
    """
    root = image_folder.check_folder(root, "RAF-DB's root")
    what, lists = "RAF-DB's basic set", [root / d / n for d in ("", "EmoLabel") for n in LISTS]
    listing = image_folder.first_of(lists, root, what)
    aligned = image_folder.first_of([root / "aligned", root / "Image/aligned"], root, what)
    _, paths, skipped = image_folder.list_folder(aligned)
    found = {os.path.basename(path): path for path in paths}
    images = {"train": [], "test": []}
    lines = {}
    for number, line in enumerate(read_lines(listing), start=1):
        if not line.strip():
            continue
        where, parts = f"{listing}:{number}", line.split()
        if len(parts) != 2 or parts[1] not in ("1", "2", "3", "4", "5", "6", "7"):
            raise InputError(f"{where}: {line.strip()!r}; expected `train_00001.jpg 5`, 1 to 7")
        stem, _, _ = parts[0].rpartition(".")
        split, file = stem.partition("_")[0], f"{stem}_aligned.jpg"
        if split not in images:
            raise InputError(f"{where}: {parts[0]!r}; expected a name from train_ or test_")
        if stem in lines:
            raise InputError(f"{where}: {parts[0]!r} is on line {lines[stem]} too; remove one")
        if file not in found:
            raise InputError(f"{where}: {parts[0]!r} has no image {aligned / file}; restore it")
        lines[stem] = number
        label = image_folder.EXPRESSIONS[CLASSES[int(parts[1]) - 1]]
        images[split].append((found[file], label))
    if not lines:
        raise InputError(f"{listing}: holds no rows; expected `train_00001.jpg 5`")
    if len(found) > len(lines):
        skipped["surplus_images"] = len(found) - len(lines)
    chosen = {name: sorted(rows) for name, rows in images.items() if rows}
    return [
        image_folder.image_set(name, rows, skipped if i == 0 else {})
        for i, (name, rows) in enumerate(chosen.items())
    ]
