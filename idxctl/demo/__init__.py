"""The demo: a tour on real servers, in a directory that is taken away with it."""
