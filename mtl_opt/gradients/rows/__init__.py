"""Where task gradients lie: the Jacobian in one buffer, or Gramians by tensor."""
