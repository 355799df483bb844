"""The configuration: from YAML to checked settings."""
