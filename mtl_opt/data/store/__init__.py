"""Rows → tokenised tables, kept on disk and read as views, one per task."""
