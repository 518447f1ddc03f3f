"""Seeing inside a model: traces of every tensor, and plots."""
