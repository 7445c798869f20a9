"""Verify: documents against their rows."""
