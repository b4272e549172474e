"""Feature extractors, and the fidelity metrics in their spaces."""
