"""CE: one of seven compound expressions per frame of C-EXPR-DB, scored by macro F1.

The organisers publish no labels. Where annotations exist, they lie as those of EXPR do: a folder
`CE_*`, a file per video, an integer from 0 to 6 per row, -1 where there is none.
"""

import functools

from abaw_jax.tracks import one_class
from abaw_jax.tracks.track import Track

CLASSES = (
    "Fearfully_Surprised",
    "Happily_Surprised",
    "Sadly_Surprised",
    "Disgustedly_Surprised",
    "Angrily_Surprised",
    "Sadly_Fearful",
    "Sadly_Angry",
)

CE = Track(
    name="CE",
    key="ce",
    classes=CLASSES,
    folder_prefix="CE",
    location_column="image_location",
    label_width=1,
    label_type="int32",
    label_range=(0, 6),
    invalid=-1,
    score_name="macro_f1",
    activations={"softmax": one_class.softmax},
    losses=one_class.losses,
    decode=one_class.decode,
    encode=functools.partial(one_class.encode, classes=len(CLASSES)),
    statistics=functools.partial(one_class.statistics, classes=len(CLASSES)),
    summarise=one_class.summarise,
)
