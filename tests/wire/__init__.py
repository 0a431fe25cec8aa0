"""Real S3 clients against a live node."""
