"""Features that the organisers of EMI supply, a pickle a clip, as a store that recipes read.

    python -m abaw_jax.supplied --kind wav2vec2 --pickles DIR/wav2vec2,DIR/test/wav2vec2 \\
        --output STORE
    python -m abaw_jax.supplied --kind vit --pickles DIR/vit,DIR/test/vit \\
        --face_images DIR/face_images,DIR/test/face_images --output STORE

Each folder holds <clip>.pkl, one array of NumPy or torch and nothing else: what a pickle would run
is refused and not run. Rows of wav2vec2 are of time, --rate a second, and cut off after 12 seconds.
Those of vit are taken to be the clip's face images in the order of their numbers, a row an image; a
clip without images is left out. The same command again does nothing.

STORE is read where config.extract.stores names it; see docs/data.md.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from abaw_jax import command
from abaw_jax.data.corpora.vidmimic2 import find_clips, list_images
from abaw_jax.data.supplied import convert_features, find_pickles
from abaw_jax.errors import InputError
from abaw_jax.tracks import EMI, Track

# What has no meaning for a kind.
_OTHERS = {"wav2vec2": "face_images", "vit": "rate"}


def _define_flags(define: command.Define) -> None:
    define("enum", "kind", None, list(_OTHERS), "What the pickles hold.")
    define("list", "pickles", None, "Folder of <clip>.pkl, or several.")
    define("string", "output", None, "Folder to write the store to.")
    define("float", "rate", 50.0, "wav2vec2: rows a second.")
    define("list", "face_images", None, "vit: folder of the clips' image folders, or several.")


def _frame_numbers(face_images: Sequence[str]) -> dict[str, np.ndarray]:
    """Clip -> the frame numbers of its images, as the corpus reader counts them; (n,), n > 0."""
    found = {}
    for clip, folders in find_clips(face_images).items():
        images, _ = list_images(clip, folders)
        if images:
            found[clip] = np.array([number for number, _ in images])
    return found


def _run(options: flags.FlagValues, rest: Sequence[str], track: Track) -> dict[str, Any]:
    command.refuse_arguments(rest)
    command.require(options, "kind", "pickles", "output")
    if options[_OTHERS[options.kind]].present:
        raise InputError(f"--{_OTHERS[options.kind]} does not go with --kind={options.kind}")
    rate, frames = options.rate, None
    if options.kind == "vit":
        command.require(options, "face_images")
        rate, frames = None, _frame_numbers(options.face_images)
    pickles = find_pickles(options.pickles)
    settings = convert_features(
        options.pickles, options.output, encoder=options.kind, rate=rate, frames=frames
    )
    left_out = 0 if frames is None else len(pickles.keys() - frames.keys())
    clips = len(pickles) - left_out
    print(f"{options.output}: {clips} clips, rows of {settings['width']} numbers")
    if left_out:
        print(f"{left_out} clips have a pickle and no image: left out")
    return {"store": options.output, "clips": clips, "left_out": left_out, **settings}


def main(argv: Sequence[str] | None = None) -> int:
    """`command.run` of this command."""
    return command.run(__doc__, _define_flags, _run, argv, track=EMI)


if __name__ == "__main__":
    sys.exit(main())
