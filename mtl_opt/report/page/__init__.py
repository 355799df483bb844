"""`report.html`: its data, style and program."""
