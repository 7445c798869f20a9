"""The pages of the documentation that are made from code, one module a page."""
