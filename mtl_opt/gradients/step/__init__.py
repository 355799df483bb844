"""The step under way: counts, scales, halves, private gradients, and what a combiner is given."""
