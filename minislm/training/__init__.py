"""Training: settings, data in a stateless order, the loop, and checkpoints that survive any interruption."""
