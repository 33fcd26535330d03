"""What one track of the competition is: its labels, its outputs, its loss, its score, its rows.

A track is one frozen dataclass of facts and pure functions (EXPR: `tracks/expr.py`). Nothing else
in the package knows what EXPR or VA means; adding a track adds one file and one line in
`tracks/__init__.py`. Importing a track imports no JAX: its two JAX functions import it when called,
so that the scorer and the data workers start fast.

Shapes: n rows (frames or clips), K outputs of the model, W numbers in a label row.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from abaw_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Summary:
    """The figures of one evaluation.

    score: the competition's number. metrics: every figure of the whole, by name (the score under
    its own name too). per_class: one mapping of figures per class, in the track's class order.
    confusion: (K, K) counts, rows true and columns predicted, for tracks that have one.
    """

    score: float
    metrics: Mapping[str, float]
    per_class: tuple[Mapping[str, Any], ...]
    confusion: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Track:
    """One track: facts, and pure functions of arrays.

    name: as written in flags, results and reports ('EXPR').
    key: the name of its label vector in records and batches ('expr').
    classes: K output names, as in the submission header, in its order.
    folder_prefix: how its annotation folder starts, up to an underscore ('EXPR').
    location_column: first column of the submission header ('image_location').
    label_width: W. label_type: 'int32' or 'float32'. label_range: lowest, highest valid label.
    invalid: the number that, in any column, makes a row unlabelled.
    score_name: what `Summary.score` is ('macro_f1').
    activation: logits (..., K) -> probabilities (..., K), float32. JAX.
    loss: (logits (..., K), labels (..., W), **options) -> loss of each row (...), float32, 0 for
        invalid rows; weighting over rows is the caller's. JAX.
    decode: values (n, K) -> predicted label rows (n, W), of label_type. NumPy.
    encode: label rows (n, W) -> values float32 (n, K) that decode to them; so that gaps between
        rows of a submission can be filled as those between predictions. NumPy.
    statistics: (predicted (n, W), labels (n, W)), all valid -> array of sufficient statistics;
        those of two sets of rows *add up* to those of their union. NumPy.
    summarise: (statistics, class names) -> Summary. NumPy.
    """

    name: str
    key: str
    classes: tuple[str, ...]
    folder_prefix: str
    location_column: str
    label_width: int
    label_type: str
    label_range: tuple[float, float]
    invalid: float
    score_name: str
    activation: Callable[[Any], Any]
    loss: Callable[..., Any]
    decode: Callable[[np.ndarray], np.ndarray]
    encode: Callable[[np.ndarray], np.ndarray]
    statistics: Callable[[np.ndarray, np.ndarray], np.ndarray]
    summarise: Callable[[np.ndarray, Sequence[str]], Summary]

    @property
    def outputs(self) -> int:
        """K, how many numbers a model gives per row."""
        return len(self.classes)

    @property
    def header(self) -> str:
        """First line of a submission: `image_location,Neutral,...`."""
        return ",".join((self.location_column, *self.classes))

    def valid(self, labels: Any) -> Any:
        """Which label rows (..., W) count: bool (...). NumPy or JAX in, the same out."""
        return (labels != self.invalid).all(-1)

    def evaluate(self, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Sufficient statistics of predicted rows (n, W) against labels (n, W); invalid rows drop.

        Add the results of any parts of a split, in any order, and give the sum to `summary`.
        """
        predicted, labels = np.asarray(predicted), np.asarray(labels)
        shape = (len(labels), self.label_width)
        if predicted.shape != shape or labels.shape != shape:
            raise InputError(
                f"{self.name}: predicted rows of shape {predicted.shape} against labels of shape "
                f"{labels.shape}; expected (n, {self.label_width}) for both"
            )
        keep = self.valid(labels)
        return self.statistics(predicted[keep], labels[keep])

    def summary(self, statistics: np.ndarray) -> Summary:
        """Figures of summed statistics."""
        return self.summarise(statistics, self.classes)

    def class_order(self, names: Sequence[str], source: str) -> np.ndarray:
        """Index array that brings columns called `names` into this track's order: int (K,).

        `values[:, track.class_order(names, file)]` is in the track's order whatever the file's was.
        Raises InputError, naming `source`, if the names are not exactly the track's classes.
        """
        names = [str(name) for name in names]
        if sorted(names) != sorted(self.classes):
            raise InputError(
                f"{source}: classes {','.join(names) or '(none)'}; {self.name} has "
                f"{','.join(self.classes)}, each once and in any order: predict for this track"
            )
        return np.array([names.index(name) for name in self.classes], dtype=np.intp)

    def format_row(self, row: np.ndarray) -> str:
        """One predicted label row (W,) as in a submission: `3`, or `0.5,-0.25`."""
        if self.label_type == "int32":
            return ",".join(str(int(number)) for number in row)
        return ",".join(f"{float(number):.6g}" for number in row)
