"""The embedded default at full length: joint against single-task training, and what the small task gains."""
