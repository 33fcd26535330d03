"""Human affect from video in JAX: the systems of the ABAW-6 competition."""

__version__ = "0.1.0"
