"""The crontab entry that retries dead letters: when, in whose tab, with which environment."""
