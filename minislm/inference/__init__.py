"""Running a model: the KV cache, the lowered program, sampling, and generation."""
