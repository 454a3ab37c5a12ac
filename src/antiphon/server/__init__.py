"""The readers: HTTP in front of the log. Knows nothing of models or of who writes."""
