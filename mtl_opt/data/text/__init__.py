"""Rows → text → tokens: templates, what is learnt of a row, how a long one is cut."""
