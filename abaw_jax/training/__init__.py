"""Training: one loop, one step, whatever the task."""
