"""The live play viewer: a process of its own beside a training, its page, and what both sides write for each other."""
