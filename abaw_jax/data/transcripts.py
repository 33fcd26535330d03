"""What is said and when: transcripts without times, by cues, or word by word.

    <video>.csv    a line `word,start,end`, then one a word, times in seconds
    <video>.vtt    WebVTT, times as [hours:]minutes:seconds.milliseconds
    <video>.srt    SubRip, the same with a comma
    <video>.txt    text alone

All are UTF-8, with or without a byte order mark, and may be empty. The words of a cue share its
time evenly; times of words inside a cue, styles and notes are passed over.
"""

import csv
import html
import io
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from abaw_jax.data.media import read_transcript
from abaw_jax.errors import InputError

TIMED = (".csv", ".vtt", ".srt", ".txt")  # the first there is of a video is read
HEADER = ["word", "start", "end"]
ARROW = "-->"
_TIME = re.compile(r"(?:(\d+):)?([0-5]?\d):([0-5]?\d)[.,](\d{3})")
_TAG = re.compile(r"</?[A-Za-z0-9][^<>]*>|</>|\{\\[^{}]*\}")


class Transcript(NamedTuple):
    """words: as they stand, without white space around them. times: float64 (words, 2), start and
    end in seconds, starts not falling; None where the file has none."""

    words: tuple[str, ...]
    times: np.ndarray | None


def read_words(path: str | os.PathLike) -> Transcript:
    """Read a transcript, in the form that its ending says. Raises InputError, with the line, for
    what is none of that form, and for times that fall or end before they start."""
    text = read_transcript(path).replace("\r\n", "\n").replace("\r", "\n")
    ending = pathlib.Path(path).suffix.lower()
    if ending not in (".csv", ".vtt", ".srt"):
        return Transcript(tuple(text.split()), None)
    read = {".csv": _rows, ".vtt": _vtt, ".srt": _srt}[ending]
    words, times, last = [], [], 0.0
    for line, said, start, end in read(path, text) if text.strip() else ():
        if not 0 <= start <= end < np.inf:
            raise InputError(
                f"{path}:{line}: from {start:g} to {end:g} s; expected an end that is not before "
                "the start, and neither below 0"
            )
        if start < last:
            raise InputError(
                f"{path}:{line}: starts at {start:g} s, what stands above it at {last:g}; sort "
                "them by their start"
            )
        last = start
        edges = np.linspace(start, end, len(said) + 1)
        words += said
        times += itertools.pairwise(edges)
    return Transcript(tuple(words), np.array(times, np.float64).reshape(-1, 2))


# (number of the line, words, start, end)
_Cues = Iterator[tuple[int, list[str], float, float]]


def _rows(path: str | os.PathLike, text: str) -> _Cues:
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        for row in rows:
            if rows.line_num == 1:
                if [name.strip().lower() for name in row] != HEADER:
                    raise InputError(f"{path}:1: {row}; expected the line {','.join(HEADER)}")
                continue
            if not row:
                continue
            try:
                word, start, end = row[0].strip(), *map(float, row[1:])
            except ValueError as error:  # of too many and too few columns, too
                raise InputError(
                    f"{path}:{rows.line_num}: {row}; expected a word and two numbers, seconds"
                ) from error
            if not word:
                raise InputError(f"{path}:{rows.line_num}: no word; remove the line")
            yield rows.line_num, [word], start, end
    except csv.Error as error:
        raise InputError(f"{path}:{rows.line_num}: {error}; expected {','.join(HEADER)}") from error


def _vtt(path: str | os.PathLike, text: str) -> _Cues:
    if not re.match(r"WEBVTT(\s|$)", text):
        raise InputError(f"{path}:1: {text[:20]!r}; WebVTT begins with WEBVTT")
    (_, head), *others = _blocks(text)
    if any(ARROW in line for line in head):
        raise InputError(f"{path}:2: expected an empty line after WEBVTT")
    for number, lines in others:
        if not re.match(r"(NOTE|STYLE|REGION)(\s|$)", lines[0]):
            line, said, start, end = _cue(path, number, lines)
            yield line, html.unescape(said).split(), start, end


def _srt(path: str | os.PathLike, text: str) -> _Cues:
    for number, lines in _blocks(text):
        line, said, start, end = _cue(path, number, lines)
        yield line, said.split(), start, end


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines between empty ones, with the number of the first of them."""
    block: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def _cue(
    path: str | os.PathLike, number: int, lines: list[str]
) -> tuple[int, str, float, float]:  # fmt: skip
    """(line of the times, what is said, start, end) of a block: a name of the cue, if any, its
    times, then text."""
    at = 0 if ARROW in lines[0] or len(lines) == 1 else 1
    start, _, end = lines[at].partition(ARROW)
    found = [_TIME.fullmatch(part) for part in (start.strip(), re.split(r"\s", end.strip())[0])]
    if None in found:
        raise InputError(
            f"{path}:{number + at}: {lines[at]!r}; expected times such as 00:00:01.000 --> "
            "00:00:02.500"
        )
    first, last = (_seconds(*match.groups(default="0")) for match in found)
    return number + at, _TAG.sub("", " ".join(lines[at + 1 :])), first, last


def _seconds(hours: str, minutes: str, seconds: str, thousandths: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths) / 1000


def said_at(said: Transcript, times: np.ndarray) -> np.ndarray:
    """The word that is being said at each time, of those that overlap the one that began last; -1
    where there is none: int64 (rows,). said: a word at least, with times. times: (rows,), s."""
    last = np.searchsorted(said.times[:, 0], times, side="right") - 1
    return np.where((last >= 0) & (times < said.times[last, 1]), last, -1)


def spread_evenly(words: int, rows: int) -> np.ndarray:
    """The word at each row, where all are taken to last equally long: int64 (rows,)."""
    return (np.arange(rows) * 2 + 1) * words // (2 * rows)
