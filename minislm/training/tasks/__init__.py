"""Examples for each task: masked words, classes, tags, answers, sequence to sequence, and mixtures of them."""
