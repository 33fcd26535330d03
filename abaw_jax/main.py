"""Run a recipe: `python -m abaw_jax.main --config=configs/expr.py --workdir=DIR`.

Config values are changed by `--config.finetune.epochs=5`. `--stages=prepare,pretrain` limits the
run to those stages. A stage that is finished is skipped; one that was interrupted goes on.
"""

import errno
import json
import os
import pathlib
import re
import sys
from collections.abc import Sequence

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from abaw_jax import recipe
from abaw_jax.errors import InputError, unknown_name
from abaw_jax.memory import tune_malloc
from abaw_jax.training.loop import Interrupted
from abaw_jax.training.partition import make_mesh

CONFIG = config_flags.DEFINE_config_file("config", None, "The recipe, as configs/expr.py[:scale].")
WORKDIR = flags.DEFINE_string("workdir", None, "Where to keep everything; runs/<name> if not set.")
STAGES = flags.DEFINE_list("stages", [], f"Only these of {', '.join(recipe.STAGES)}.")
REDO = flags.DEFINE_bool("redo", False, "Make stages again whose config or inputs have changed.")
JSON = flags.DEFINE_bool("json", False, "End with one line that holds the results as JSON.")


def parse(argv: list[str]) -> list[str]:
    """absl's flags, with every fault of the config file or its overrides as one line."""
    sys.path.append(str(pathlib.Path(__file__).parents[1]))  # for `from configs import base`
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is None:
            raise InputError("--config is missing: name a recipe, such as --config=configs/expr.py")
        recipe.check_sections(CONFIG.value)  # the file is loaded on first use
        changed = config_flags.get_override_values(flags.FLAGS["config"])
        for key in ("track", "system"):
            if key in changed:
                raise InputError(
                    f"config.{key}: a flag cannot change it; name it by the config itself, as in "
                    "--config=configs/va.py:ctyun"
                )
        return rest
    except InputError as error:
        stop(2, str(error))
    except Exception as error:
        # The text of these may be a key alone.
        if isinstance(error, AttributeError | KeyError) and (unknown := find_unknown_key(argv)):
            stop(2, str(unknown))
        lines = str(error).strip("'\"").replace("\\n", "\n").splitlines()
        lines = [line.strip(" '\"") for line in lines if line.strip()]
        if any("Traceback (most" in line for line in lines):  # the config's own error comes last
            lines = lines[-1:]
        stop(2, " ".join(lines)[:500])


def find_unknown_key(argv: Sequence[str]) -> InputError | None:
    """The error for the first `--config.a.b` of a key that the config's file does not have."""
    path = re.search(r"^--?config[=\n](.*)$", "\n".join(argv), re.MULTILINE)
    if path is None:
        return None
    loaded = flags.FLAGS["config"].parser.parse(path[1])
    for flag in argv:
        if not (found := re.match(r"--?(?:no)?config\.([\w.]+)", flag)):
            continue
        where, section = "config", loaded
        for key in found[1].split("."):
            if not isinstance(section, ConfigDict):
                return InputError(f"{where}: is {section!r}, which holds no {key!r}")
            if key in section:
                where, section = f"{where}.{key}", section[key]
            elif len(section):
                return unknown_name(where, key, "a key of it", section)
            else:
                return InputError(
                    f"{where}: has no {key!r}, nor any key yet; give it as a whole: "
                    f"--{where}=\"{{'{key}': ...}}\""
                )
    return None


def stop(status: int, message: str) -> None:
    """End with one line on standard error."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def main(argv: list[str]) -> None:
    """Mesh, then recipe."""
    if len(argv) > 1:
        stop(2, f"{argv[1]!r} is not a flag; see --help")
    logging.set_verbosity(logging.WARNING)  # JAX reports each backend it does not find
    config = CONFIG.value
    workdir = pathlib.Path(WORKDIR.value or pathlib.Path("runs") / config.name)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(cache / "abaw_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        mesh = make_mesh((config.mesh.data, config.mesh.fsdp, config.mesh.tensor))
        results = recipe.run(config, workdir, mesh, stages=STAGES.value, redo=REDO.value)
    except InputError as error:
        stop(2, str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        stop(2, f"{error.filename or workdir}: {error.strerror}; free space or name another folder")
    except (Interrupted, KeyboardInterrupt) as stopped:
        stop(getattr(stopped, "code", 130), "interrupted; the same command goes on from here")
    if JSON.value:
        print(json.dumps(results))


if __name__ == "__main__":
    tune_malloc()
    app.run(main, flags_parser=parse)
