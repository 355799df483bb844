"""A summary as tables: text, Markdown, LaTeX, CSV."""
