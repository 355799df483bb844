"""Combiners around a combiner: they change when, where or how strongly it acts."""
