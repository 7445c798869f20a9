"""Capture: from watches to triggers."""
