"""Layers taken apart by task, for `one_pass` and `two_pass`."""
