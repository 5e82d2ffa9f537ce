"""Slow, obvious forms of the rules in plain Python: the truth that the kernels are held to."""
