"""Neighbour replay: runs a method on D, then on another set D' with the releases of D held fixed.

A privacy claim rests on an inequality between neighbours: when one image is added or removed, each
release may differ by at most its declared sensitivity, and nothing else may differ at all. Both are
measured here on a few neighbours, without noise and through the real mechanisms:

- The Poisson draws of an image and the draws of its copies are the same in both sets, whichever
  other images there are. The images in which the sets differ are in every batch, which is one of
  the possible outcomes of Poisson sampling.
- After a release on D' has been compared with that on D, the latter takes its place, so that D'
  continues from the same weights. A later difference therefore did not come through a release.
- For the same reason nothing may differ on sets that share no image with D, but the releases, which
  are not compared there. What a method takes from any image by another way shows on them.
- The gradient of an image is computed among others and alone.

Each fit has a process of its own. Gradients are computed by the engine that training uses.
"""

NOT_SHOWN = (
    "other neighbours and other draws: a release that moves too far on none of these",
    "steps beyond those that the smoke profile allows, where the preset has more",
    "code that gets at the data by itself (a file, a download): it is the same on both sides",
    "code that behaves where it recognises this check, or an audit",
    "what leaves by another way than the sampler, such as files and printed text",
    "the noise, which is off here, and whether a method undoes it: dpbench audit",
)
