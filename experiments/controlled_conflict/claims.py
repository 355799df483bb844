"""The claims, each put to a setting where it should win and to one where it should lose."""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.controlled_conflict.comparisons import (
    WINDOW,
    Test,
    at_the_end,
    conflicts_are_spurious,
    gradvac_differs,
    harm,
    longer_by_noise,
    mgda_balanced,
    mgda_small_gradient,
    mgda_worst_task,
    noise_end,
    pcgrad_is_sum,
    pcgrad_one_step,
    unmoved_by_scale,
    window_sees_through,
)
from experiments.controlled_conflict.family import Knobs
from mtl_opt import COMBINERS, CAGrad, Combiner, Denoised, GradDrop, PCGrad, Sum


@dataclass(frozen=True)
class Claim:
    """Put a prediction to the test.

    Attributes:
        method: The method it is about.
        expected: "win" where theory or paper promise it, "lose" where they do not, "same" where nothing can differ.
        prediction: The sentence that is found true or false.
        test: How it is tested.
    """

    method: str
    expected: str
    prediction: str
    test: Test


def _each(names: str, expected: str, prediction: str, test: Callable[[type[Combiner]], Test]) -> list[Claim]:
    """Make the same claim of several methods; `{}` stands for the class."""
    return [
        Claim(name, expected, prediction.format(COMBINERS[name].__name__), test(COMBINERS[name]))
        for name in names.split()
    ]


CURVED, ROUND = Knobs(-0.5, 5.0, 1.0, along=True), Knobs(-0.5, 5.0, 1.0)
FLAT = Knobs(-0.9, 1.2, 0.01, along=True)
UNFAIR = "cosine -0.5, norms 1 and 10"


def _denoised() -> Combiner:
    """Build PCGrad on the window's Gramian."""
    return Denoised(PCGrad(), window=WINDOW)


def _cautious() -> Combiner:
    """Build CAGrad with a small radius."""
    return CAGrad(c=0.1)


IN_ONE_STEP = [
    Claim(
        "pcgrad",
        "win",
        "PCGrad beats the sum in a large step where curvature lies along the sum",
        pcgrad_one_step(CURVED, wins=True),
    ),
    Claim(
        "pcgrad",
        "lose",
        "PCGrad loses to the sum in a large step where all directions are curved",
        pcgrad_one_step(ROUND, wins=False),
    ),
    Claim(
        "pcgrad",
        "win",
        "PCGrad beats the sum without curvature, gradients almost opposite: its update is longer",
        pcgrad_one_step(FLAT, wins=True),
    ),
    Claim(
        "pcgrad",
        "lose",
        "PCGrad loses there at equal length: the gain was step size, not direction",
        pcgrad_one_step(FLAT, wins=False, same_length=True),
    ),
    Claim("pcgrad", "same", "PCGrad is the sum, bit by bit, where gradients agree", pcgrad_is_sum),
    Claim(
        "gradvac",
        "lose",
        "GradVac with a target of 0.5 turns the update where gradients agree (cosine 0.2)",
        gradvac_differs,
    ),
]

OF_THE_WEAKER = [
    Claim("sum", "lose", f"The sum harms the weaker task to first order ({UNFAIR})", harm(Sum, True)),
    *_each(
        "pcgrad mgda upgrad dualproj nash_mtl imtl_g aligned_mtl config",
        "win",
        f"{{}} does not harm the weaker task ({UNFAIR})",
        lambda method: harm(method, False),
    ),
    Claim(
        "cagrad",
        "lose",
        f"CAGrad with c = 0.1 harms the weaker task ({UNFAIR}): no promise below c = 1",
        harm(_cautious, True),
    ),
    Claim(
        "graddrop",
        "lose",
        f"GradDrop harms the weaker task ({UNFAIR}): it drops by sign of coordinates",
        harm(GradDrop, True),
    ),
    Claim(
        "mgda",
        "win",
        f"MGDA moves the worst task over 1.5 times as fast per unit of update ({UNFAIR})",
        mgda_worst_task,
    ),
    Claim("mgda", "same", "MGDA moves the worst task as fast as the sum at equal norms: same direction", mgda_balanced),
    Claim(
        "mgda",
        "lose",
        "MGDA gives a task of a hundredfold gradient under 1 % of the sum's progress",
        mgda_small_gradient,
    ),
]

OF_SCALE = [
    *_each(
        "imtl_g nash_mtl config fairgrad",
        "win",
        "{} keeps its direction when a loss is multiplied by 100",
        lambda method: unmoved_by_scale(method, moved=False),
    ),
    *_each(
        "sum mgda pcgrad upgrad cagrad aligned_mtl",
        "lose",
        "{} turns over 10 degrees when a loss is multiplied by 100",
        lambda method: unmoved_by_scale(method, moved=True),
    ),
]

AT_THE_END = [
    *_each(
        "pcgrad mgda cagrad upgrad nash_mtl imtl_g aligned_mtl",
        "lose",
        "{} does not end below the sum in the summed loss (convex, no noise)",
        lambda method: at_the_end(method, better=False, worst=False),
    ),
    *_each(
        "pcgrad mgda upgrad nash_mtl imtl_g",
        "win",
        "{} ends below the sum in the worst task's loss",
        lambda method: at_the_end(method, better=True, worst=True),
    ),
]

UNDER_NOISE = [
    Claim(
        "monitor",
        "win",
        "Batches conflict in over 35 % of steps though expected gradients have cosine 0.5",
        conflicts_are_spurious,
    ),
    Claim("monitor", "win", f"A window of {WINDOW} steps finds that cosine within 0.25", window_sees_through),
    Claim(
        "pcgrad",
        "lose",
        "PCGrad's updates are over 10 % larger in the mean square for nothing but noise",
        longer_by_noise(PCGrad, longer=True),
    ),
    Claim(
        "pcgrad",
        "same",
        "Denoised PCGrad's are within 5 % of the sum's there",
        longer_by_noise(_denoised, longer=False),
    ),
    Claim(
        "pcgrad",
        "lose",
        "PCGrad does not end below the sum where every conflict is noise",
        noise_end(PCGrad, better=False),
    ),
]

CLAIMS = (*IN_ONE_STEP, *OF_THE_WEAKER, *OF_SCALE, *AT_THE_END, *UNDER_NOISE)
