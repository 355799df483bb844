"""Are these configurations for real hub models right, and what would they take?"""
