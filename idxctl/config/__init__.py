"""The configuration: read from flags, environment and file, checked as a whole, and handed on as frozen settings."""
