"""Pure decisions and plain data: no input, no output, no clock of its own."""
