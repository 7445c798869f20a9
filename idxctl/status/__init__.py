"""What is told of queue, indexes and workers: views as JSON has them, gauges, and the conditions that hold."""
