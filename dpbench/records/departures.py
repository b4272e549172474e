"""What runs of published methods have that the papers do not, read from their specs."""

from __future__ import annotations

from dpbench.records.run_record import RunSpec

CENTRES = "class centres"
RECIPES = "class recipes"
# one line for each, with what the paper has in its place
MEANINGS = {
    CENTRES: "denoised images start from a learnt image of each class; in the papers of these "
    "methods they start from the noisy image alone",
    RECIPES: "public images are drawn by a program of ours that tells the classes apart; the "
    "papers have programs that know no classes (DP-SynGen) or photographs (DP-DDPM)",
}
PUBLISHED = ("dpdm", "dp-ddpm", "dp-feta", "dpsyngen", "dpsyngen-coarse", "dpsyngen-cleaning")
_RECIPES = "class-recipes"


def departures(spec: RunSpec) -> tuple[str, ...]:
    """Name the ingredients of ours in a run of a published method.

    Departures in size, such as a smaller network or fewer steps, are not among them.

    Args:
        spec: The run's spec; its hyper-parameters tell.

    Returns:
        Keys of ``MEANINGS``, in their order; none for a method that is ours or a baseline.
    """
    if spec.method not in PUBLISHED:
        return ()
    public = (str(spec.public), str(spec.method_args.get("synthetic")))
    found = {
        CENTRES: float(spec.method_args.get("centre_learning_rate", 0.0)) > 0,
        RECIPES: any(source.split("@")[0] == _RECIPES for source in public),
    }
    return tuple(name for name in MEANINGS if found[name])
