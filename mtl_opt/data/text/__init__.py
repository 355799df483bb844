"""Rows → text → tokens: templates, loss masks, and truncation of long rows."""
