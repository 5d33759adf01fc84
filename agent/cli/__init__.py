"""One thin file per verb of the console script icebox; only here do agent and envs meet."""
