"""Runs → plain numbers: scores, differences, verdicts, the winner."""
