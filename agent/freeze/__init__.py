"""The mode switch: a learning network becomes a policy that can only act, small and proven, on any machine."""
