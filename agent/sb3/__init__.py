"""The only room that imports stable-baselines3: our agent as its algorithm, and its own algorithms as baselines."""
