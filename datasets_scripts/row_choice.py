"""Which rows of a scan are kept: a balance of its classes, at most so many, spread over time."""

from collections import Counter
from collections.abc import Sequence

from datasets_scripts.schema import BACKGROUND

NATURAL, NO_MORE_BACKGROUND, BALANCED = CLASS_BALANCES = ("natural", "background", "balanced")


def choose_rows(labels: Sequence[str], class_balance: str, most: int | None) -> list[int]:
    """Numbers of the rows to keep, ascending; those of a class are spread evenly over its rows.

    Args:
        labels: class of each row, in the order of time.
        class_balance: `natural` keeps all; `background` keeps no more background than there is of the most
            frequent plane; `balanced` keeps of each class as many as there are of the rarest.
        most: rows that are kept at most, shared out alike among the classes as far as each has rows; None for
            no limit.
    """
    wanted = _balanced(Counter(labels), class_balance)
    if most is not None:
        wanted = _shared_out(wanted, most)
    chosen = []
    for label, number in wanted.items():
        rows = [row for row, each in enumerate(labels) if each == label]
        chosen += [rows[place] for place in evenly_spread(len(rows), number)]
    return sorted(chosen)


def evenly_spread(number: int, wanted: int) -> list[int]:
    """`wanted` of the numbers from 0 to `number` - 1, as evenly spread as they can be; all, if too few."""
    wanted = min(number, wanted)
    return [(2 * place + 1) * number // (2 * wanted) for place in range(wanted)]


def _balanced(counts: Counter[str], class_balance: str) -> dict[str, int]:
    if class_balance == BALANCED:
        return dict.fromkeys(counts, min(counts.values(), default=0))
    if class_balance == NO_MORE_BACKGROUND:
        limit = max((number for label, number in counts.items() if label != BACKGROUND), default=0)
        return {
            label: min(number, limit) if label == BACKGROUND else number for label, number in counts.items()
        }
    return dict(counts)


def _shared_out(wanted: dict[str, int], most: int) -> dict[str, int]:
    """The rarest class is served first, so that what it leaves over goes to the others."""
    shares, left = {}, most
    for served, (label, number) in enumerate(sorted(wanted.items(), key=lambda item: (item[1], item[0]))):
        shares[label] = min(number, left // (len(wanted) - served))
        left -= shares[label]
    return shares
