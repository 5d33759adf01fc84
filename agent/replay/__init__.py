"""Experience on one film per game: each frame stored once, stacks and n-step returns gathered when sampled."""
