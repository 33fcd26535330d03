"""Expressions as prototypes of action units, their blends, and the contexts they occur in.

Sources of the prototypes: Ekman & Friesen, Facial Action Coding System (1978), and its table of
emotion predictions, EMFACS (Friesen & Ekman 1983; Ekman, Friesen & Hager, FACS Investigator's
Guide, 2002). Units outside Aff-Wild2's twelve (5, 9, 17, 20) are left out or follow a neighbour
when drawn. Compound expressions blend two prototypes: Du, Tao & Martinez, PNAS 111 (2014).
"""

import numpy as np

from abaw_jax.data.demo.people import AUS

EXPRESSIONS = (
    "Neutral",
    "Anger",
    "Disgust",
    "Fear",
    "Happiness",
    "Sadness",
    "Surprise",
    "Other",
)
NEUTRAL, ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE, OTHER = range(8)

# The compounds' numbers follow on those of the eight.
COMPOUNDS = {
    "Fearfully_Surprised": (FEAR, SURPRISE),
    "Happily_Surprised": (HAPPINESS, SURPRISE),
    "Sadly_Surprised": (SADNESS, SURPRISE),
    "Disgustedly_Surprised": (DISGUST, SURPRISE),
    "Angrily_Surprised": (ANGER, SURPRISE),
    "Sadly_Fearful": (SADNESS, FEAR),
    "Sadly_Angry": (SADNESS, ANGER),
}
# RAF-DB's other four.
MORE_COMPOUNDS = {
    "Angrily_Disgusted": (ANGER, DISGUST),
    "Fearfully_Angry": (FEAR, ANGER),
    "Happily_Disgusted": (HAPPINESS, DISGUST),
    "Sadly_Disgusted": (SADNESS, DISGUST),
}
COMPOUND = len(EXPRESSIONS)  # the first compound's number
(
    FEARFULLY_SURPRISED,
    HAPPILY_SURPRISED,
    SADLY_SURPRISED,
    DISGUSTEDLY_SURPRISED,
    ANGRILY_SURPRISED,
    SADLY_FEARFUL,
    SADLY_ANGRY,
) = range(COMPOUND, COMPOUND + len(COMPOUNDS))
# What each number's expression is made of.
PARTS = (*((k,) for k in range(COMPOUND)), *COMPOUNDS.values())
NONE = (0,) * COMPOUND


def units(**values: float) -> np.ndarray:
    """Intensities of the twelve action units: units(AU6=.7, AU12=.9) -> float32 (12,)."""
    out = np.zeros(len(AUS), np.float32)
    for name, value in values.items():
        out[AUS.index(int(name[2:]))] = value
    return out


# EMFACS: happiness 6 + 12; sadness 1 + 4 + 15; surprise 1 + 2 (+ 5) + 26; fear 1 + 2 + 4 (+ 5) + 7
# (+ 20) + 25/26; anger 4 (+ 5) + 7 + 23/24; disgust (9 or) 10 (+ 15, 16).
PROTOTYPES = np.stack(
    [
        units(),
        units(AU4=0.95, AU7=0.75, AU10=0.15, AU23=0.7, AU24=0.45),
        units(AU4=0.5, AU6=0.2, AU7=0.45, AU10=0.95, AU15=0.25, AU25=0.25),
        units(AU1=0.85, AU2=0.55, AU4=0.55, AU7=0.3, AU15=0.2, AU25=0.6, AU26=0.3),
        units(AU6=0.75, AU12=0.95, AU25=0.45),
        units(AU1=0.9, AU4=0.4, AU7=0.1, AU15=0.95),
        units(AU1=0.85, AU2=0.9, AU25=0.6, AU26=0.75),
        units(),  # Other has no prototype: see OTHER_KINDS
    ]
)
# A compound's: the stronger of its two parts' in each unit.
_BLENDS = [PROTOTYPES[list(parts)].max(axis=0) for parts in COMPOUNDS.values()]
PROTOTYPES = np.concatenate([PROTOTYPES, _BLENDS])
# Some of what Aff-Wild2's annotators call Other.
OTHER_KINDS = np.stack(
    [
        units(AU12=0.7, AU24=0.55),  # a polite smile
        units(AU4=0.5, AU6=0.8, AU7=0.8, AU12=0.4, AU25=0.5),  # pain
        units(AU2=0.75, AU24=0.85),  # doubt
    ]
)
# The expression each is mistaken for: their units overlap most. A weak Sadness looks Neutral.
LOOK_ALIKE = {
    ANGER: DISGUST,
    DISGUST: ANGER,
    FEAR: SURPRISE,
    SURPRISE: FEAR,
    HAPPINESS: OTHER,
    SADNESS: NEUTRAL,
    OTHER: HAPPINESS,
    FEARFULLY_SURPRISED: SADLY_SURPRISED,
    HAPPILY_SURPRISED: DISGUSTEDLY_SURPRISED,
    SADLY_SURPRISED: SADLY_FEARFUL,
    DISGUSTEDLY_SURPRISED: ANGRILY_SURPRISED,
    ANGRILY_SURPRISED: FEARFULLY_SURPRISED,
    SADLY_FEARFUL: SADLY_SURPRISED,
    SADLY_ANGRY: SADLY_FEARFUL,
}
# What goes on decides which of two look-alikes a face means: theme -> (main expression, chances of
# the eight). Look-alikes do not share a theme, so the rest of a window tells them apart.
THEMES = {
    "delight": (HAPPINESS, (0, 0, 0, 0, 0.7, 0, 0.22, 0.08)),
    "threat": (FEAR, (0, 0.1, 0, 0.78, 0, 0, 0, 0.12)),
    "grief": (SADNESS, (0, 0.08, 0, 0, 0, 0.8, 0, 0.12)),
    "talk": (OTHER, (0, 0, 0, 0, 0.15, 0, 0, 0.85)),
    "quarrel": (ANGER, (0, 0.78, 0, 0, 0, 0.12, 0, 0.1)),
    "wonder": (SURPRISE, (0, 0, 0, 0, 0.15, 0, 0.75, 0.1)),
    "revulsion": (DISGUST, (0, 0, 0.82, 0.08, 0, 0, 0, 0.1)),
}
# The same of compounds, whose chances stand after the eight's.
COMPOUND_THEMES = {
    "alarm": (FEARFULLY_SURPRISED, (*NONE, 0.7, 0.15, 0, 0, 0, 0, 0.15)),
    "present": (HAPPILY_SURPRISED, (*NONE, 0, 0.7, 0, 0, 0.15, 0.15, 0)),
    "loss": (SADLY_SURPRISED, (*NONE, 0, 0.15, 0.7, 0, 0.15, 0, 0)),
    "mess": (DISGUSTEDLY_SURPRISED, (*NONE, 0, 0, 0.15, 0.7, 0, 0, 0.15)),
    "insult": (ANGRILY_SURPRISED, (*NONE, 0, 0, 0.15, 0, 0.7, 0, 0.15)),
    "wait": (SADLY_FEARFUL, (*NONE, 0, 0.15, 0, 0, 0.15, 0.7, 0)),
    "betrayal": (SADLY_ANGRY, (*NONE, 0, 0, 0.15, 0.15, 0, 0, 0.7)),
}
# Frames from rest to apex: surprise is the fastest and briefest, sadness the slowest.
ONSET = (4, 4, 4, 3, 4, 8, 2, 4)
# Places on the circumplex (Russell 1980): valence, arousal.
CIRCUMPLEX = np.array(
    [
        (0.0, 0.02),
        (-0.6, 0.65),
        (-0.6, 0.3),
        (-0.62, 0.75),
        (0.75, 0.45),
        (-0.65, -0.25),
        (0.15, 0.7),
        (0.05, 0.15),
    ],
    np.float32,
)
