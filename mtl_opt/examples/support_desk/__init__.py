"""Three tasks of the support desk of an invented bank, made by a seeded generator."""
