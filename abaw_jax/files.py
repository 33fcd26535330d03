"""Files that are either whole or absent under their final name, and JSON read with clear errors;
whether what lies on disk has changed."""

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import IO

from abaw_jax.errors import InputError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """Open a file beside `path` and rename it to `path` once it is written and synced.

    On any error (a full disk included) the unfinished file is removed and `path` is untouched.
    The parent folders are made. Raises InputError where the folder cannot be written.
    """
    path = pathlib.Path(path)
    encoding = None if "b" in mode else "utf-8"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); free space or name another folder"
        ) from error
    try:
        os.fchmod(handle, 0o666 & ~_umask())
        with open(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        if isinstance(error, OSError):
            raise InputError(
                f"{path}: cannot be written ({error.strerror}); free space or name another folder"
            ) from error
        raise


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write `value` as indented JSON, whole or not at all. NaN and infinity are refused."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, allow_nan=False)
        file.write("\n")


def read_json(path: str | os.PathLike) -> dict:
    """Read a JSON object. Raises InputError, naming the file, where it is absent or not JSON."""
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); expected an object") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a JSON {type(value).__name__}; expected an object")
    return value


def disk_state(path: str | os.PathLike, *, files: bool) -> str:
    """Hash of the times of `path` and of folders two levels below it, with `files` of files too."""
    lines = []

    def look(item: pathlib.Path, depth: int) -> None:
        try:
            lines.append(f"{item} {item.stat().st_mtime_ns}")
            inner = []
            if depth and item.is_dir():
                with os.scandir(item) as entries:
                    inner = sorted(e.name for e in entries if files or e.is_dir())
        except OSError as error:  # the reader says what is wrong with it, if it needs it
            lines.append(f"{item} {error.strerror}")
            return
        for name in inner:
            look(item / name, depth - 1)

    if not os.path.exists(path):
        return "absent"
    look(pathlib.Path(path), 2 + files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
