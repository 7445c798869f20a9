"""Workers: claim, read, write, settle."""
