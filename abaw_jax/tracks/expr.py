"""EXPR: one of eight expressions per frame of Aff-Wild2, scored by macro F1."""

import functools

from abaw_jax.tracks import one_class
from abaw_jax.tracks.track import Track

CLASSES = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")

EXPR = Track(
    name="EXPR",
    key="expr",
    classes=CLASSES,
    folder_prefix="EXPR",
    location_column="image_location",
    label_width=1,
    label_type="int32",
    label_range=(0, 7),
    invalid=-1,
    score_name="macro_f1",
    activations={"softmax": one_class.softmax},
    losses=one_class.losses,
    decode=one_class.decode,
    encode=functools.partial(one_class.encode, classes=len(CLASSES)),
    statistics=functools.partial(one_class.statistics, classes=len(CLASSES)),
    summarise=one_class.summarise,
)
