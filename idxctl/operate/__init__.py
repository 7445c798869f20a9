"""What operators do: dead letters, cron, exports."""
