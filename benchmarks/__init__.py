"""What it costs: one question per file, one shared timer, JSON with hardware and versions."""

import os

# NumPy reads it when it is loaded. Its own threads would wait for each other on the one core of a measurement; only
# `[tasks, tasks]` solves use them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
