"""The tour: one small language model built, trained, compressed by every family, measured and shown, by one command."""
