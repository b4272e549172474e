"""Pinned weights of the dataset-trained feature extractors."""
