"""VA: valence and arousal per frame of Aff-Wild2, both in [-1, 1], scored by their mean CCC.

Activations: tanh (as in `hsemotion` and `masked_vit`); clip, which clamps in the loss as well
(`fuxi`); linear, which clips predictions only (`ctyun`).
"""

from abaw_jax.evaluation import metrics
from abaw_jax.tracks import numbers
from abaw_jax.tracks.track import Track

BOUNDS = (-1, 1)

VA = Track(
    name="VA",
    key="va",
    classes=("valence", "arousal"),
    folder_prefix="VA",
    location_column="image_location",
    label_width=2,
    label_type="float32",
    label_range=BOUNDS,
    invalid=-5,
    score_name="mean_ccc",
    activations={
        "tanh": numbers.squash("tanh"),
        "clip": numbers.clip(*BOUNDS),
        "linear": numbers.linear(*BOUNDS),
    },
    losses=numbers.losses("ccc"),
    decode=numbers.decode(*BOUNDS),
    encode=numbers.encode,
    statistics=metrics.moment_sums,
    summarise=numbers.summarise("mean_ccc"),
)
