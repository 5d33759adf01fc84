"""Torsos, heads and the Q-network that joins them."""
