"""What is said of an architecture whose public weights are read and written, and of the forms in
which libraries name its tensors."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from abaw_jax.interop.keymap import Rule, Shape

Sizes = dict[str, Any]
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Form:
    """How one library names an architecture's tensors.

    marks: tensors that are all there in this form alone. rules: sizes -> rules of `keymap`.
    ignored: patterns of names that hold no weights of the model. files: description -> what
    the library has beside weights, as JSON by the files' names.
    """

    marks: tuple[str, ...]
    rules: Callable[[Sizes], Sequence[Rule]]
    ignored: tuple[str, ...] = ()
    files: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda description: {"config.json": {}}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is known of an architecture.

    sizes: (tensors' shapes, name of the form, what is said beside the tensors, source's name) ->
        sizes, as JSON has them; `outputs` of a classifier among them.
    module: sizes -> the module.
    example: sizes -> what the module is called with, one example, as shapes and types.
    apply: (module, variables, inputs) -> {'features': (B, D), 'logits': (B, C), ...}.
    forms: by name, in the order in which they are tried; the first is that of models trained here.
    head: pattern of the tensors that go when the classifier is dropped.
    inputs: "image", for uint8 images that are normalised first, or a key of `inputs.TAKE`.
    normalise: a key of `conventions.NORMALISED`; "" where weights in this form come with several.
    fixed: sizes -> tables, by path, that files hold and the module computes.
    resize: (arrays by path, sizes, image size) -> both for another image size than the tensors
        show. Raises InputError where it cannot be done. None: they show none, and that in `sizes`
        is what is taken where nothing else is said.
    """

    sizes: Callable[[Mapping[str, Shape], str, Mapping[str, Any], str], Sizes]
    module: Callable[[Sizes], nn.Module]
    example: Callable[[Sizes], tuple[jax.ShapeDtypeStruct, ...]]
    apply: Callable[[nn.Module, Any, Any], dict[str, jax.Array]]
    forms: dict[str, Form]
    head: str
    inputs: str = "image"
    normalise: str = ""
    fixed: Callable[[Sizes], Arrays] = lambda sizes: {}
    resize: Callable[[Arrays, Sizes, int], tuple[Arrays, Sizes]] | None = None
