"""Indexes: definitions, generations, documents as bytes."""
