"""The embedded example: what runs without a model or data of one's own."""
