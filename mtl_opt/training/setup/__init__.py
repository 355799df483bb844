"""From a configuration to data, model, task gradients, combiner, optimizer and sampler."""
