"""Files: checkpoints, the cache and saved estimators."""
