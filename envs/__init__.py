"""Games as vectors with three verbs: reset, send, recv. Import from the modules; see envs/make.py."""
