"""What one track of the competition is: its labels, its outputs, its losses, its score, its rows.

A track is one frozen dataclass of facts and pure functions (EXPR: `tracks/expr.py`). Nothing else
in the package knows what EXPR or VA means; adding a track adds one file and one line in
`tracks/__init__.py`. Importing a track imports no JAX: its JAX functions import it when called,
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
class Loss:
    """One loss of a track, as a pure function of a batch. JAX.

    function: (outputs (..., K), labels (..., W), valid bool (...), **options) -> (losses, weights),
        two float32 arrays of one shape; the loss of the global batch, and of its micro-batches
        together, is the sum of all losses over the sum of all weights. Invalid rows add 0 to both,
        and their gradient is 0, whatever their labels and whatever finite outputs they have.
    options: the names of the options that it takes.
    per_row: the arrays have the shape of `valid`, and each row's pair depends on that row alone, so
        that losses of mixed rows mix. Otherwise rows are judged together (as by the CCC), within
        the batch or micro-batch that the function is given.
    of_values: the outputs are activation(logits, train=True); otherwise they are the logits.
    """

    function: Callable[..., tuple[Any, Any]]
    options: tuple[str, ...] = ()
    per_row: bool = True
    of_values: bool = False


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
    activations: name -> (logits (..., K), train=False) -> values (..., K), float32: what the score,
        the files and other people take. With train=True what losses of values take: where a value
        is clipped, that may lie beyond the bounds. The first is the default. JAX.
    losses: () -> name -> Loss, made when called, as it imports JAX. The first is the default.
    decode: values (n, K) -> predicted label rows (n, W), of label_type; with a second argument
        where the track has `thresholds`. NumPy.
    encode: label rows (n, W) -> values float32 (n, K) that decode to them; so that gaps between
        rows of a submission can be filled as those between predictions. NumPy.
    statistics: (predicted (n, W), labels (n, W)), all valid -> array of sufficient statistics;
        those of two sets of rows *add up* to those of their union. NumPy.
    summarise: (statistics, class names) -> Summary. NumPy.
    thresholds: the default of decode's second argument, a number or (K,): where values lie at
        least that high a class is on. None for tracks without.
    per_clip: labels are of whole clips, rows of one csv table, and a submission's lines name clips
        (`read_labels`). Otherwise of frames, a file of rows per video. In predictions a clip is a
        video of one frame.
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
    activations: Mapping[str, Callable[..., Any]]
    losses: Callable[[], Mapping[str, Loss]]
    decode: Callable[..., np.ndarray]
    encode: Callable[[np.ndarray], np.ndarray]
    statistics: Callable[[np.ndarray, np.ndarray], np.ndarray]
    summarise: Callable[[np.ndarray, Sequence[str]], Summary]
    thresholds: float | None = None
    per_clip: bool = False

    @property
    def outputs(self) -> int:
        """K, how many numbers a model gives per row."""
        return len(self.classes)

    @property
    def header(self) -> str:
        """First line of a submission: `image_location,Neutral,...`."""
        return ",".join((self.location_column, *self.classes))

    @property
    def activation(self) -> Callable[..., Any]:
        """The default of `activations`."""
        return self.find_activation()

    def find_activation(self, name: str | None = None) -> Callable[..., Any]:
        """The activation of that name, or the default; InputError names those there are."""
        return self._find("activation", self.activations, name)

    def find_loss(self, name: str | None = None) -> Loss:
        """The loss of that name, or the default; InputError names those there are."""
        return self._find("loss", self.losses(), name)

    def _find(self, kind: str, known: Mapping[str, Any], name: str | None) -> Any:
        name = name or next(iter(known))
        if name not in known:
            raise InputError(
                f"{kind} {name!r}: {self.name} has no such {kind}; expected one of "
                f"{', '.join(known)}"
            )
        return known[name]

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

    def check_classes(self, names: Sequence[str], source: str) -> None:
        """InputError, naming `source`, unless `names` are this track's classes, in its order.

        Another order is never put right: nobody can tell whether the names or the values moved.
        """
        names = tuple(map(str, names))
        if names != self.classes:
            same = sorted(names) == sorted(self.classes)
            remedy = "write names and columns in this order" if same else "predict for this track"
            raise InputError(
                f"{source}: classes {','.join(names) or '(none)'}; {self.name} has "
                f"{','.join(self.classes)}, each once and in this order: {remedy}"
            )

    def format_row(self, row: np.ndarray) -> str:
        """One predicted label row (W,) as in a submission: `3`, or `0.5,-0.25`."""
        if self.label_type == "int32":
            return ",".join(str(int(number)) for number in row)
        return ",".join(f"{float(number):.6g}" for number in row)
