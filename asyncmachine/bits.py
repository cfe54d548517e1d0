"""Sets of positions as ints, and graphs as lists of such sets: edges by where they start."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["bits", "components", "members", "transposed", "without_cycles"]


def bits(positions: Iterable[int]) -> int:
    """Give the bit set of some positions.

    Example:
        >>> bits([1, 3])
        10

    """
    mask = 0
    for position in positions:
        mask |= 1 << position
    return mask


def members(mask: int) -> list[int]:
    """Give the positions in a bit set, ascending.

    Example:
        >>> members(0b1010)
        [1, 3]

    """
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def transposed(masks: list[int]) -> list[int]:
    """Turn every edge around."""
    turned = [0] * len(masks)
    for i, mask in enumerate(masks):
        for j in members(mask):
            turned[j] |= 1 << i
    return turned


def closure(masks: list[int]) -> list[int]:
    """What can be reached from each position, in one step or more."""
    reach = list(masks)
    for k in range(len(reach)):
        bit, through = 1 << k, reach[k]
        if not through:
            continue
        for i, mask in enumerate(reach):
            if mask & bit:
                reach[i] = mask | through
    return reach


def without_cycles(after: list[int]) -> list[int]:
    """Drop the edges whose ends can reach each other."""
    reach = closure(after)
    back = transposed(reach)
    return [mask & ~(reach[i] & back[i]) for i, mask in enumerate(after)]


def components(masks: list[int]) -> list[int]:
    """All that is connected with each position, itself included, direction left aside."""
    both = [m | b | 1 << i for i, (m, b) in enumerate(zip(masks, transposed(masks)))]
    return closure(both)
