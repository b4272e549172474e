"""Methods that turn private images into a sampler: one file per method, found by its name."""
