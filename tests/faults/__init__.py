"""File systems that fail and power cuts that come at the worst moment, for tests of what must survive both."""
