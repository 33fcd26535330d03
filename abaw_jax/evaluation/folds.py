"""Which videos belong together, and folds that never part them.

Two people of one recording are two videos, `<recording>_left` and `<recording>_right`; a person may
appear in several recordings. What belongs together, directly or by way of another video, lies in
one fold, and on one side of a split.
"""

import os
from collections.abc import Mapping, Sequence

from abaw_jax.errors import InputError
from abaw_jax.tracks.annotations import read_lines, split_cells

ENDINGS = ("_left", "_right")


def recording(video: str) -> str:
    """The recording a video was cut from: its name without `_left` or `_right`.

    Names hold digits, `_` and `-` themselves, so nothing else is taken off.
    """
    for ending in ENDINGS:
        if video.endswith(ending) and video != ending:
            return video.removesuffix(ending)
    return video


def read_columns(
    path: str | os.PathLike, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Rows of a csv file with a header: (line number, column -> text), in file order.

    The header names `columns`, then none or all of `optional`. Any line ends, quotes, a byte order
    mark and blank lines are accepted. Raises InputError as `file:line` for another header or a row
    of another width or with an empty cell, and for a file without rows.
    """
    lines = enumerate(read_lines(path), 1)
    table = [(n, [c.strip() for c in split_cells(line, f"{path}:{n}")]) for n, line in lines]
    header = [name.lower() for name in table[0][1]]
    if header not in ([*columns], [*columns, *optional]):
        more = f"[,{','.join(optional)}]" if optional else ""
        raise InputError(
            f"{path}:1: header {','.join(header)[:80]!r}; expected {','.join(columns)}{more}"
        )
    rows = []
    for line, cells in table[1:]:
        if not any(cells):
            continue
        if len(cells) != len(header) or not all(cells):
            raise InputError(
                f"{path}:{line}: {','.join(cells)[:80]!r}; expected {','.join(header)}"
            )
        rows.append((line, dict(zip(header, cells, strict=True))))
    if not rows:
        raise InputError(f"{path}: has no row below its header")
    return rows


def read_mapping(path: str | os.PathLike, column: str) -> dict[str, str]:
    """A csv file `video,<column>` (person, fold) -> video: text. InputError for a video twice."""
    found: dict[str, str] = {}
    for line, row in read_columns(path, ("video", column)):
        if row["video"] in found:
            raise InputError(f"{path}:{line}: video {row['video']} stands here a second time")
        found[row["video"]] = row[column]
    return found


def group_videos(
    videos: Sequence[str], persons: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Video -> all videos that belong with it, sorted: of its recording and of its persons.

    persons: video -> person, for every one of `videos`; without it recordings alone count. Raises
    InputError for a video without a person.
    """
    for video in videos:
        if persons is not None and video not in persons:
            raise InputError(f"video {video} has no person; name one for each video")
    groups = {video: [video] for video in videos}
    for key in (recording, *([persons.__getitem__] if persons is not None else [])):
        first: dict[str, str] = {}
        for video in sorted(videos):
            mine, other = groups[video], groups[first.setdefault(key(video), video)]
            if other is not mine:
                other += mine
                groups.update(dict.fromkeys(mine, other))
    return {video: tuple(sorted(group)) for video, group in groups.items()}


def group_names(videos: Sequence[str], persons: Mapping[str, str] | None = None) -> dict[str, str]:
    """Video -> its group of `group_videos`, called by the group's first video: what a resample
    draws whole."""
    return {video: group[0] for video, group in group_videos(videos, persons).items()}


def make_folds(
    frames: Mapping[str, int], folds: int = 5, persons: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Video -> fold, 0 .. folds - 1, alike in frames: the largest group first, to the emptiest.

    frames: labelled frames of each video. The same whatever the order of `frames`; nothing is
    drawn. Fewer groups than folds make as many folds as groups. Raises InputError for fewer than 2
    folds or groups.
    """
    groups = sorted(
        set(group_videos(list(frames), persons).values()),
        key=lambda group: (-sum(frames[video] for video in group), group),
    )
    if folds < 2 or len(groups) < 2:
        raise InputError(
            f"{folds} folds of {len(groups)} recordings or persons that share no video; "
            "cross-validation needs 2 of both at least"
        )
    load = [0] * min(folds, len(groups))
    chosen = {}
    for group in groups:
        fold = load.index(min(load))
        load[fold] += sum(frames[video] for video in group)
        chosen.update(dict.fromkeys(group, fold))
    return {video: chosen[video] for video in sorted(frames)}


def given_folds(
    frames: Mapping[str, int], names: Mapping[str, str], persons: Mapping[str, str] | None = None
) -> dict[str, int]:
    """Video -> fold, numbered in the order of the folds' names, from folds someone chose.

    names: video -> name of its fold; may name more videos. Raises InputError for a video without
    fold, a recording or person in two folds, and a single fold.
    """
    for video, group in sorted(group_videos(list(frames), persons).items()):
        for other in group:
            if other not in names:
                raise InputError(f"video {other} has no fold; name one for each labelled video")
            if names[other] != names[video]:
                raise InputError(
                    f"videos {video} and {other} show one recording or person but lie in folds "
                    f"{names[video]} and {names[other]}; keep them in one"
                )
    order = sorted({names[video] for video in frames})
    if len(order) < 2:
        raise InputError(f"all videos lie in fold {order[0]}; cross-validation needs 2 at least")
    return {video: order.index(names[video]) for video in sorted(frames)}
