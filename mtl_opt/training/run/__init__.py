"""The run: step, loop, checkpoints, evaluation, what is written."""
