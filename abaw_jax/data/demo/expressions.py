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

COMPOUNDS = {
    "Fearfully_Surprised": (FEAR, SURPRISE),
    "Happily_Surprised": (HAPPINESS, SURPRISE),
    "Sadly_Surprised": (SADNESS, SURPRISE),
    "Disgustedly_Surprised": (DISGUST, SURPRISE),
    "Angrily_Surprised": (ANGER, SURPRISE),
    "Sadly_Fearful": (SADNESS, FEAR),
    "Sadly_Angry": (SADNESS, ANGER),
}
MIMICRY = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")


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
# Frames from rest to apex: surprise is the fastest and briefest, sadness the slowest.
ONSET = np.array([4, 4, 4, 3, 4, 8, 2, 4])
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


def compound_intensities(felt: np.ndarray) -> np.ndarray:
    """Intensities of the seven compounds, float (..., 7), from those of the eight, (..., 8).

    A compound is as strong as the geometric mean of its two parts: both must be there.
    """
    parts = np.array(list(COMPOUNDS.values()))
    return np.sqrt(felt[..., parts[:, 0]] * felt[..., parts[:, 1]])


def compound_labels(felt: np.ndarray, least: float = 0.15) -> np.ndarray:
    """The strongest compound of each frame, int32 (...,); -1 where none reaches `least`."""
    intensities = compound_intensities(felt)
    labels = intensities.argmax(axis=-1).astype(np.int32)
    return np.where(intensities.max(axis=-1) >= least, labels, -1).astype(np.int32)


def compound_prototype(name: str) -> np.ndarray:
    """Action units of a compound, float32 (12,): the stronger of its two parts' in each unit."""
    first, second = COMPOUNDS[name]
    return np.maximum(PROTOTYPES[first], PROTOTYPES[second])


def mimicry_intensities(
    felt: np.ndarray, expressed: np.ndarray, valence: np.ndarray, arousal: np.ndarray
) -> np.ndarray:
    """The six mimicry intensities of a clip in [0, 1], float32 (6,), in MIMICRY's order.

    felt (n, 8) intensities of the expressions, expressed (n, 12) action units, valence and arousal
    (n,). Values are thirds and most are 0, like the vote shares of Hume-Vidmimic2.
    """
    peak = np.quantile(felt, 0.9, axis=0)
    unit = dict(zip(AUS, np.quantile(expressed, 0.9, axis=0), strict=True))
    lively = float(np.clip(np.quantile(arousal, 0.9), 0, 1))
    pleasant = float(np.clip(np.quantile(valence, 0.9), 0, 1))
    values = (
        2.0 * np.sqrt(peak[HAPPINESS] * peak[SURPRISE]),
        1.4 * peak[HAPPINESS] * lively,
        max(unit[24], unit[23]) * (1 - peak[HAPPINESS]) * (1 - 0.5 * peak[SADNESS]),
        max(peak[SADNESS], 0.9 * min(unit[4], unit[10], unit[25])),
        1.6 * lively * pleasant,
        peak[HAPPINESS] * (0.5 + pleasant),
    )
    return (np.round(3 * np.clip(values, 0, 1)) / 3).astype(np.float32)
