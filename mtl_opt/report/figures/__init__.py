"""Figures as PNG and PDF for papers."""
