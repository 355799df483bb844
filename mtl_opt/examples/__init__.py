"""The embedded example, which needs neither model nor data: `tiny_llama` is the model, `support_desk` the data."""
