"""The tracks by key: `TRACKS['expr']`. A new track is one file here and one line below."""

from abaw_jax.tracks.au import AU
from abaw_jax.tracks.ce import CE
from abaw_jax.tracks.emi import EMI
from abaw_jax.tracks.expr import EXPR
from abaw_jax.tracks.track import Loss, Summary, Track
from abaw_jax.tracks.va import VA

TRACKS = {track.key: track for track in (VA, EXPR, AU, CE, EMI)}

__all__ = ["AU", "CE", "EMI", "EXPR", "TRACKS", "VA", "Loss", "Summary", "Track"]
