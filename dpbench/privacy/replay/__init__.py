"""Neighbour replay: a method is run on D, then on a neighbour D' with D's transcript held fixed.

The inequality under a privacy claim is about neighbours: each release may differ by at most its
declared sensitivity when one image is added or removed, and nothing else may differ at all. Here
both are measured, on a few neighbours, with the noise off and through the real mechanisms:

- An image has the same Poisson draws, and the same draws of its copies, in both sets, whoever else
  is there. The images that make the difference are in every batch: a possible course of events.
- After a release on D' was compared with D's, D's takes its place, so that D' goes on from the
  same weights. Whatever differs nevertheless did not come through a release.
"""

NOT_SHOWN = (
    "other images and other draws: a statistic that none of these neighbours changes",
    "code that gets at the data by itself (a file, a download): it is the same on both sides",
    "what leaves by another way than the sampler, such as files and printed text",
    "the noise, which is off here, and whether a method undoes it",
)
