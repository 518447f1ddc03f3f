"""How good, how fast and how large a model is: likelihood, agreement with another model, speed, memory."""
