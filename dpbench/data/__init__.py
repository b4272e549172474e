"""The data sets: what there is (``catalog``, imports no torch) and how to get it (``load``)."""
