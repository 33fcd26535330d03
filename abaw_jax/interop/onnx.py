"""A prediction as one ONNX file, for runtimes without JAX, and back as a function.

Needs jax2onnx, onnx and onnxruntime, which docs/weights.md says how to install. The weights are in
the file; its inputs and outputs have the names of the prediction's arrays, `image` where it takes
one alone.
"""

import collections
import contextlib
import importlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np

from abaw_jax.errors import InputError
from abaw_jax.models.convolution import use_form

PROGRAM = "model.onnx"
PACKAGES = ("jax2onnx", "onnx", "onnxruntime")
IMAGE = "image"
MOST = 2**31  # bytes of a protobuf message


class Onnx(NamedTuple):
    """A file's bytes, and the number of examples that it takes at a time, None for any."""

    program: bytes
    examples: int | None


def check_installed() -> None:
    """Raise InputError where a package that ONNX needs is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX needs {', '.join(missing)}: pip install onnx onnx-ir onnxruntime, then "
            "pip install --no-deps jax2onnx (with its dependencies it puts an older Orbax in place)"
        )


def make_onnx(
    function: Callable[[Any, Any], dict[str, jax.Array]],
    variables: Any,
    make_inputs: Callable[[Any], Any],
    source: object,
) -> Onnx:
    """(variables, inputs) -> outputs, for any number of examples, or where that cannot be, for one.

    make_inputs: as `interop.export.save_program`. Raises InputError, naming `source`, for a model
    with an operation that ONNX or jax2onnx does not have.
    """
    check_installed()
    (batch,) = jax.export.symbolic_shape("B")
    failure = None
    for examples, count in ((batch, None), (1, 1)):
        try:
            return Onnx(_convert(function, variables, make_inputs(examples)), count)
        except Exception as error:  # of shapes and of operations, of no one type
            failure = error
    reason = " ".join(str(failure).split())[:200] or type(failure).__name__
    raise InputError(
        f"{source}: cannot be written as ONNX ({reason}); take --format=stablehlo"
    ) from failure


def _convert(function: Callable, variables: Any, inputs: Any) -> bytes:
    shapes = inputs if isinstance(inputs, Mapping) else {IMAGE: inputs}
    names = sorted(shapes)
    outputs = list(jax.eval_shape(function, variables, inputs))

    def of_arrays(*arrays):
        given = dict(zip(names, arrays, strict=True))
        found = function(variables, given if isinstance(inputs, Mapping) else given[IMAGE])
        return tuple(found[name] for name in outputs)

    with _quiet(), use_form("grouped"):
        model = importlib.import_module("jax2onnx").to_onnx(
            of_arrays,
            [shapes[name] for name in names],
            model_name="abaw_jax",
            input_names=names,
            output_names=outputs,
        )
    _join_prelus(model.graph)
    if model.ByteSize() >= MOST:
        raise ValueError(f"{model.ByteSize()} bytes; a file holds less than {MOST}")
    program = model.SerializeToString()
    load_onnx(program)
    return program


def _join_prelus(graph: Any) -> None:
    """x if x >= 0 else slope x, as `models.convolution.PReLU` comes, as the one operation for it.

    For eight images of a MobileFaceNet ONNX Runtime takes two thirds of the time: its Where alone
    goes over the map several times.
    """
    to_array = importlib.import_module("onnx.numpy_helper").to_array
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    uses = collections.Counter(name for node in graph.node for name in node.input)
    for node in list(graph.node):
        if node.op_type != "Where":
            continue
        x, test, product = node.input[1], made.get(node.input[0]), made.get(node.input[2])
        if not (test and test.op_type == "GreaterOrEqual" and test.input[0] == x):
            continue
        if not (product and product.op_type == "Mul" and x in product.input):
            continue
        bound = constants.get(test.input[1])
        slope = product.input[0 if product.input[1] == x else 1]
        if bound is None or to_array(bound).any() or slope not in constants:
            continue
        node.op_type = "PRelu"
        del node.input[:]
        node.input.extend([x, slope])
        for part in (test, product):
            if uses[part.output[0]] == 1:
                graph.node.remove(part)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of jax2onnx, which has a traceback for each package it does without."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def load_onnx(
    program: bytes | pathlib.Path, threads: int = 0
) -> Callable[[Any], dict[str, np.ndarray]]:
    """The function of an ONNX file in ONNX Runtime on CPU: NumPy arrays by name -> the same.

    Takes one array alone where there is one input. threads: 0 for as many as there are cores.
    """
    check_installed()
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads
    given = program if isinstance(program, bytes) else str(program)
    session = runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]

    def predict(arrays):
        arrays = arrays if isinstance(arrays, Mapping) else {inputs[0]: arrays}
        found = session.run(outputs, {name: np.asarray(arrays[name]) for name in inputs})
        return dict(zip(outputs, found, strict=True))

    return predict
