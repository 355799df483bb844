"""One YAML → a checked configuration."""
