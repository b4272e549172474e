"""Reference points under the same protocol: one file per baseline, found by its name."""
