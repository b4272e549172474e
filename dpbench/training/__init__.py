"""Training shared by methods: the resumable loop, averaging, augmentation, pre-training."""
