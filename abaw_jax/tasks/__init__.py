"""What a step optimises: reconstruct, frames, sequences, collaborate."""

from abaw_jax.tasks.collaborate import make_collaborate_task
from abaw_jax.tasks.frames import make_frames_task
from abaw_jax.tasks.reconstruct import make_reconstruct_task
from abaw_jax.tasks.sequences import make_sequences_task
from abaw_jax.tasks.task import Aux, Task

__all__ = [
    "Aux",
    "Task",
    "make_collaborate_task",
    "make_frames_task",
    "make_reconstruct_task",
    "make_sequences_task",
]
