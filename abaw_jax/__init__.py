"""Human affect from video in JAX: the systems of the ABAW-6 competition.

model = abaw_jax.load(folder)
found = model(images)  # uint8 (B, S, S, 3)
found["probabilities"], model.classes
"""

__version__ = "0.1.0"


def load(folder):
    """The model of a folder as a function of arrays; see `abaw_jax.interop.load`."""
    # The commands that only score start without JAX.
    from abaw_jax.interop.load import load as load_folder

    return load_folder(folder)
