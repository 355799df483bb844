"""What it costs: one question per file, one shared timer, JSON with hardware and versions."""
