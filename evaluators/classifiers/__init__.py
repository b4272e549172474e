"""Classifiers that evaluators train: networks, recipes, training, predictions."""
