"""Images made by programs: public by construction; each is a ``dpbench.api.sources.Source``.

Nothing is cached on disk: drawing is fast, and an image is a function of its source, the source's
parameters, the seed and its index.
"""
