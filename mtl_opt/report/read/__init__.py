"""Folders of results → runs."""
