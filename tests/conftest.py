"""Eight CPU devices and checked annotations for every test: set before anything imports JAX."""

import importlib.metadata
import os

import pytest
from jaxtyping import install_import_hook

# A test spends its time in compiling, not in what is compiled: LLVM's passes are left out. Programs
# as users run them are those of the tests that start a command, which drop these flags.
QUICK = {
    "--xla_backend_optimization_level": 0,
    "--xla_llvm_disable_expensive_passes": "true",
}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # The former code generators take half the time; releases that lack them refuse the flag.
    QUICK["--xla_cpu_use_fusion_emitters"] = "false"
FLAGS = {"--xla_force_host_platform_device_count": 8, **QUICK}
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [given, *(f"{flag}={value}" for flag, value in FLAGS.items() if flag not in given)]
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# The shapes and types that these modules declare are checked at each call, in this process alone.
# The tower: an int is accepted where a float is asked for, as by static checkers.
install_import_hook(
    ["abaw_jax.models", "abaw_jax.training.losses", "abaw_jax.evaluation.metrics"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """Compiled programs are kept, for all tests and for the commands they start, and gone after.

    Tests make the same small models again and again. What counts compilations counts what is read
    back too.
    """
    import jax

    folder = tmp_path_factory.mktemp("compiled")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield


@pytest.fixture(scope="session")
def quick():
    """XLA_FLAGS for commands that a test starts, where it matters not how well they compile."""
    return " ".join(f"{flag}={value}" for flag, value in QUICK.items())
