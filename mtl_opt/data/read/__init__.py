"""Files, folders and named data sets → records → rows."""
