"""Which planes a simulated scan visits, and when."""

from dataclasses import dataclass

import numpy as np

from .schema import BACKGROUND, PLANES

FIRST_SEARCH_SECONDS = (0.5, 1.5)


@dataclass(frozen=True)
class Visit:
    """The probe holds the plane `label` from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    label: str


def plan_visits(
    duration_s: float,
    rng: np.random.Generator,
    hold_seconds: tuple[float, float] = (4.0, 7.0),
    search_seconds: tuple[float, float] = (1.0, 2.0),
) -> list[Visit]:
    """Planes in random order, each held for a while, with a search for the next one in between.

    A scan that is longer than all 13 planes take goes through them again in another order.

    Args:
        duration_s: length of the scan.
        rng: settles order and times.
        hold_seconds, search_seconds: ranges of the time on a plane and between two planes.

    Returns:
        The visits in order of time, all over by `duration_s`; what is between them is background.
    """
    structures = [plane for plane in PLANES if plane != BACKGROUND]
    visits: list[Visit] = []
    queue: list[str] = []
    start_s = rng.uniform(*FIRST_SEARCH_SECONDS)
    while True:
        if not queue:
            queue = list(rng.permutation(structures))
        end_s = start_s + rng.uniform(*hold_seconds)
        if end_s > duration_s:
            return visits
        visits.append(Visit(start_s, end_s, str(queue.pop())))
        start_s = end_s + rng.uniform(*search_seconds)
