"""Measures the house: how long modules and functions are, what a class holds, which modules import in a circle, what stands twice."""
