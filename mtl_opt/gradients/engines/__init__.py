"""The engines: each fills the rows of all tasks its own way."""
