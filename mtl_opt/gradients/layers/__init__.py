"""Layers whose backward splits the weight gradient by task, for `one_pass` and `two_pass`."""
