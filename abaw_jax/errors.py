"""The one exception that stands for a mistake a person can mend."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class InputError(ValueError):
    """Something given to the program is wrong: a file, a row, a key, a value.

    Its message is one line that names the file (and the line or key), says what was found, what
    was expected, and what to do. Commands print that line and exit with status 2; every other
    exception is a fault of the program and keeps its traceback.
    """


def unknown_name(where: str, name: str, what: str, known: Iterable[str]) -> InputError:
    """The error for a name that is none of those known: it lists them, and the nearest if any is.

    where: the flag or key that holds it. what: what it should be, with its article ('a stage').
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"{where}: {name!r} is not {what}; known are {', '.join(known)}{hint}")


@contextlib.contextmanager
def within(section: str) -> Iterator[None]:
    """Put the section's name before what is wrong in it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{section}: {error}") from error
