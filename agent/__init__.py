"""Icebox's agent: plays in inference mode, learns between its actions, and can be frozen. Import from the modules."""
