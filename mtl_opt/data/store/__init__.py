"""Rows → tokenised tables, in memory or memory-mapped from the cache, and per-task views and streams of them."""
