"""The run: step, loop, checkpoints, evaluation, logs."""
