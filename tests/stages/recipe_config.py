"""configs/expr.py, loaded as a command line loads it: by its path."""

import importlib.util
import pathlib

_PATH = pathlib.Path(__file__).parents[2] / "configs" / "expr.py"
_SPEC = importlib.util.spec_from_file_location("expr", _PATH)
expr = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(expr)
