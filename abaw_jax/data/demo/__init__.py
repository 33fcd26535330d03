"""The demo corpus: drawn faces in the published layouts, where there are no real ones.

`generate(out, size, seed, workers, track=...)` writes it: Aff-Wild2's for VA, EXPR and AU, the same
with compound expressions for CE (C-EXPR-DB itself has no labels), Hume-Vidmimic2's for EMI. The
people, scenes and stories behind it are in people.py, expressions.py, story.py, mimicry.py; what
they look and sound like in face.py, camera.py, sound.py; the constants that make it easy or hard in
settings.py; the files in recordings.py, layout.py and clips.py.
"""

from abaw_jax.data.demo.corpus import generate
from abaw_jax.data.demo.plan import plan_clips, plan_corpus
from abaw_jax.data.demo.recordings import tell_video

__all__ = ["generate", "plan_clips", "plan_corpus", "tell_video"]
