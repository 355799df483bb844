"""Files, folders and data sets by name → records → rows."""
