"""CelebA: 202,599 aligned faces of 178 x 218, without labels that are used here.

Source: Liu, Luo, Wang and Tang, "Deep learning face attributes in the wild", ICCV 2015.
"""

import os

from abaw_jax.data.corpora import image_folder
from abaw_jax.data.records import Split
from abaw_jax.errors import InputError
from abaw_jax.tracks.annotations import read_lines

SPLITS = ("train", "validation", "test")  # 0, 1, 2 in the list
LISTING, IMAGES = "list_eval_partition.txt", "img_align_celeba"


def read(root: str | os.PathLike) -> list[Split]:
    """Read `img_align_celeba/000001.jpg` and `list_eval_partition.txt`.

    Both are looked for in `root` and where the archive puts them (`Img/`, `Eval/`).

    Raises:
      InputError: no such folder or list; a row that is no `000001.jpg 0`, of a part outside 0..2,
        named twice or without its image (with the list's line).
    """
    root = image_folder.check_folder(root, "CelebA's root")
    listing = image_folder.first_of([root / LISTING, root / "Eval" / LISTING], root, "CelebA")
    folder = image_folder.first_of([root / IMAGES, root / "Img" / IMAGES], root, "CelebA")
    _, paths, skipped = image_folder.list_folder(folder)
    found = {os.path.basename(path): path for path in paths}
    parts = {name: [] for name in SPLITS}
    lines = {}
    for number, line in enumerate(read_lines(listing), start=1):
        if not line.strip():
            continue
        where, row = f"{listing}:{number}", line.split()
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise InputError(f"{where}: {line.strip()!r}; expected `000001.jpg 0`, 0 to 2")
        if row[0] in lines:
            raise InputError(f"{where}: {row[0]!r} is on line {lines[row[0]]} too; remove one")
        if row[0] not in found:
            raise InputError(f"{where}: {row[0]!r} has no image in {folder}; restore it")
        lines[row[0]] = number
        parts[SPLITS[int(row[1])]].append(found[row[0]])
    if not lines:
        raise InputError(f"{listing}: holds no rows; expected `000001.jpg 0`")
    skipped["surplus_images"] = len(found) - len(lines)
    chosen = {name: sorted(images) for name, images in parts.items() if images}
    return [
        image_folder.labelled_set(name, images, {}, skipped if i == 0 else {})
        for i, (name, images) in enumerate(chosen.items())
    ]
