"""EMI: how strongly each of six emotions is mimicked in a clip of Hume-Vidmimic2, in [0, 1] each,
scored by the mean of six Pearson correlations.

Activations: sigmoid (as in `hsemotion`); linear, which clips predictions only (`fuxi`). Clips that
have no label are marked by -5, as frames are in VA: the published tables hold none.
"""

from abaw_jax.evaluation import metrics
from abaw_jax.tracks import numbers
from abaw_jax.tracks.track import Track

BOUNDS = (0, 1)

EMI = Track(
    name="EMI",
    key="emi",
    classes=("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy"),
    folder_prefix="EMI",
    location_column="Filename",
    label_width=6,
    label_type="float32",
    label_range=BOUNDS,
    invalid=-5,
    score_name="mean_pearson",
    activations={"sigmoid": numbers.squash("sigmoid"), "linear": numbers.linear(*BOUNDS)},
    losses=numbers.losses("mse"),
    decode=numbers.decode(*BOUNDS),
    encode=numbers.encode,
    statistics=metrics.moment_sums,
    summarise=numbers.summarise("mean_pearson"),
    per_clip=True,
)
