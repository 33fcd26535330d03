"""The tracks by key: `TRACKS['expr']`. A new track is one file here and one line below."""

from abaw_jax.tracks.expr import EXPR
from abaw_jax.tracks.track import Summary, Track

TRACKS = {EXPR.key: EXPR}

__all__ = ["EXPR", "TRACKS", "Summary", "Track"]
