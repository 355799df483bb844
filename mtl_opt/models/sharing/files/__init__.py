"""Adapters on disk: our own form, and peft's."""
