"""Configuration → data, model, engine, combiner, sampler."""
