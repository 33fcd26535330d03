"""How published weights want pixels, and in which orders they have outputs."""

from abaw_jax.tracks.affectnet import AFFECTNET

# Pixels from 0 to 1 less the mean, by the deviation. face_mae: of the public face-MAE weights.
NORMALISED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "face_mae": ((0.49895147, 0.41043906, 0.36561476), (0.29708471, 0.26990031, 0.26525996)),
}
# Orders of outputs that published weights have, by the names that the tracks give the classes.
CLASSES = {
    "affectnet8": AFFECTNET.classes,
    "affectnet7": AFFECTNET.classes[:-1],
    "alphabetical8": (
        "Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise",
    ),
}  # fmt: skip
