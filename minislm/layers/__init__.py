"""Parameters and the wiring of ops: every layer's forward, its backward, and its steps in a Program."""
