"""What a policy looks at, and rules that say what it does."""
