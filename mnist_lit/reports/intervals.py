"""Confidence intervals."""

from math import sqrt

NORMAL_95 = 1.959964  # quantile of the normal distribution for a two-sided interval of 95 %


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a share.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    share, z = right / total, NORMAL_95
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)
