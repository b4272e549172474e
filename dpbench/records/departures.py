"""What runs of published methods have that their papers do not, read from records."""

from __future__ import annotations

from dpbench.records.run_record import RunRecord, RunSpec

CENTRES = "class centres"
SPECTRUM = "natural spectrum"
STATISTICS = "class statistics"
LEVELS = "sampled levels only"
RECIPES = "class recipes"
# one line for each, with what the paper has in its place
MEANINGS = {
    CENTRES: "denoised images start from a learnt image of each class; in the papers of these "
    "methods they start from the noisy image alone",
    SPECTRUM: "the normal distributions that denoised images start from have less variance at high "
    "frequencies, as natural images have; in the papers the network alone knows of it",
    STATISTICS: "denoised images start from released means and deviations of each class's pixels, "
    "which the network sees in place of the label; in the papers it is told the label",
    LEVELS: "noise levels below the last that is sampled are not trained; in the papers all are",
    RECIPES: "public images are drawn by a program of ours that tells the classes apart; the "
    "papers have programs that know no classes (DP-SynGen) or photographs (DP-DDPM)",
}
PUBLISHED = ("dpdm", "dp-ddpm", "dp-feta", "dpsyngen", "dpsyngen-coarse", "dpsyngen-cleaning")
_RECIPES = "class-recipes"


def departures(record: RunRecord) -> tuple[str, ...]:
    """Name the ingredients of ours in a run of a published method.

    Departures in size, such as a smaller network or fewer steps, are not among them.

    Args:
        record: Of the run. Older ones do not say it; there the hyper-parameters tell.

    Returns:
        Names as methods declare them, mostly keys of ``MEANINGS``; none for a method that is ours
        or a baseline.
    """
    declared = record.resolved.get("departures")
    return of_spec(record.spec) if declared is None else tuple(declared)


def of_spec(spec: RunSpec) -> tuple[str, ...]:
    """Name the ingredients that the hyper-parameters of a run bring in."""
    if spec.method not in PUBLISHED:
        return ()
    public = (str(spec.public), str(spec.method_args.get("synthetic")))
    found = {
        CENTRES: float(spec.method_args.get("centre_learning_rate", 0.0)) > 0,
        SPECTRUM: float(spec.method_args.get("natural_spectrum", 0.0)) > 0,
        STATISTICS: float(spec.method_args.get("statistics_share", 0.0)) > 0,
        LEVELS: float(spec.method_args.get("trained_sigma_min", 0.0)) > 0,
        RECIPES: any(source.split("@")[0] == _RECIPES for source in public),
    }
    return tuple(name for name in MEANINGS if found[name])
