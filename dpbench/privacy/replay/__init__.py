"""Neighbour replay: runs a method on D, then on a neighbour D' with the releases of D held fixed.

A privacy claim rests on an inequality between neighbours: when one image is added or removed, each
release may differ by at most its declared sensitivity, and nothing else may differ at all. Both are
measured here on a few neighbours, without noise and through the real mechanisms:

- The Poisson draws of an image and the draws of its copies are the same in both sets, whichever
  other images there are. The images in which the sets differ are in every batch, which is one of
  the possible outcomes of Poisson sampling.
- After a release on D' has been compared with that on D, the latter takes its place, so that D'
  continues from the same weights. A later difference therefore did not come through a release.

Gradients are computed by the first engine that fits the model, which is the engine that training
uses unless another one is faster.
"""

NOT_SHOWN = (
    "other images and other draws: a statistic that none of these neighbours changes",
    "code that gets at the data by itself (a file, a download): it is the same on both sides",
    "what leaves by another way than the sampler, such as files and printed text",
    "the noise, which is off here, and whether a method undoes it",
)
