"""Real sentence tasks on a real pretrained encoder."""
