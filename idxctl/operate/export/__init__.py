"""Files and lines for other programs: crontab."""
