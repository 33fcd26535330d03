"""The demo corpus: drawn faces in Aff-Wild2's published layout, where there is no Aff-Wild2.

`generate(out, size, seed, workers)` writes it. The people, scenes and stories behind it are in
people.py, expressions.py, story.py; what they look and sound like in face.py, camera.py, sound.py;
the constants that make it easy or hard in settings.py.
"""

from abaw_jax.data.demo.corpus import generate, tell_video
from abaw_jax.data.demo.plan import plan_corpus

__all__ = ["generate", "plan_corpus", "tell_video"]
