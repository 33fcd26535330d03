"""What the commands on predictions share: flags of their own, a record, one line of refusal.

A command has two functions: one defines its flags beyond --track, --json and --help; the other does
the work, prints for people and returns the record that --json prints as the last line.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from abaw_jax.errors import InputError
from abaw_jax.tracks import TRACKS, Track

# define('string', 'output', None, 'Folder to write to.'): the kinds are absl's.
Define = Callable[..., None]
Body = Callable[[flags.FlagValues, Sequence[str], Track | None], dict[str, Any]]


def run(
    program: str,
    define_flags: Callable[[Define], None],
    body: Body,
    argv: Sequence[str] | None,
    track: Track | None = None,
    *,
    any_track: bool = True,
) -> int:
    """Run a command (argv[0] is its name) and return its exit status: 0, or 2 where what was given
    is wrong, after one line on standard error, or 141 where nobody reads on (`| head -1`).

    program: its docstring, shown by --help. body: (flags, arguments that are no flags, track) ->
    record. track: of a command for one track alone, which then has no --track; nor has one that is
    for several at once, any_track=False, whose body is given None. InputError is what is wrong;
    everything else keeps its traceback.
    """
    any_track = any_track and track is None
    options = _make_flags(define_flags, any_track)
    try:
        try:
            rest = options(sys.argv if argv is None else argv)[1:]
        except flags.Error as error:
            raise InputError(" ".join(str(error).split())) from error
        if options.help:
            print(f"{program}\n{options.get_help(include_special_flags=False)}")
            return 0
        if any_track:
            require(options, "track")
            track = TRACKS[options.track.lower()]
        record = body(options, rest, track)
        if options.json:
            print(json.dumps(record, allow_nan=False))
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still to be written must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says of a process that SIGPIPE has ended
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _make_flags(define_flags: Callable[[Define], None], any_track: bool) -> flags.FlagValues:
    """The command's flags, apart from those that other modules define for all programs."""
    values = flags.FlagValues()

    def define(kind: str, name: str, default: Any, *rest: Any, **options: Any) -> None:
        getattr(flags, f"DEFINE_{kind}")(name, default, *rest, flag_values=values, **options)

    if any_track:
        names = [track.name for track in TRACKS.values()]
        define("enum", "track", None, names, "What is predicted.", case_sensitive=False)
    define_flags(define)
    define("bool", "json", False, "End with one line of JSON.")
    define("bool", "help", False, "Show this help.")
    # Flags may stand behind arguments that are none.
    values.set_gnu_getopt(True)
    return values


def require(options: flags.FlagValues, *names: str) -> None:
    """InputError for the first of these flags that was not given, or is empty."""
    for name in names:
        if not options[name].value:
            raise InputError(f"--{name} is missing; see --help")


def refuse_arguments(rest: Sequence[str]) -> None:
    """InputError for what stands on the command line and is no flag."""
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; see --help")


def read_pairs(texts: Sequence[str], flag: str, what: str) -> dict[str, str]:
    """NAME=VALUE texts of a flag by name; `what` is the value's in messages.

    Raises InputError for a text that is no such pair, and for a name that is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise InputError(f"--{flag} {text!r}; expected NAME={what}")
        if name in found:
            raise InputError(f"--{flag}: {name} is given twice; give each its own name")
        found[name] = value
    return found


def read_thresholds(given: Sequence[str] | None, track: Track) -> float | list[float] | None:
    """The numbers of --thresholds; InputError if they are none, or the track has no such thing."""
    if given is None:
        return None
    shown = f"--thresholds={','.join(given)}"
    if track.thresholds is None:
        raise InputError(f"{shown}: {track.name} is not decided by thresholds; leave them out")
    try:
        numbers = [float(number) for number in given]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, track.outputs) or not np.isfinite(numbers).all():
        raise InputError(
            f"{shown}; expected one number or {track.outputs}, one for each of "
            f"{','.join(track.classes)}"
        )
    return numbers[0] if len(numbers) == 1 else numbers
