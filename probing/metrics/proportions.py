"""Intervals of shares: of one, and of the difference of two that the same questions gave."""

from statistics import NormalDist


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share; (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z * (share * (1 - share) / trials + z**2 / (4 * trials**2)) ** 0.5 / (1 + z**2 / trials)
    return middle - reach, middle + reach


def paired_score(gained: int, lost: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for the difference of two shares over the same trials; (-1, 1) without trials.

    `gained` trials succeeded the second time only and `lost` the first time only, so the difference is
    (gained - lost) / trials. It has a width, and holds zero inside, also where all trials went alike.

    Source: Tango, Statistics in Medicine 17 (1998), 891-908, equations 2 to 6.
    """
    if not trials:
        return -1.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def score(difference: float) -> float:
        """How many standard errors the observed difference lies above a true one."""
        # The likeliest share of trials that are lost, were that the true difference: the root of a x^2 + b x + c.
        a, b = 2 * trials, (2 * trials - gained + lost) * difference - gained - lost
        c = -lost * difference * (1 - difference)
        share = ((b * b - 4 * a * c) ** 0.5 - b) / (2 * a)
        variance = trials * (2 * share + difference * (1 - difference))
        above = gained - lost - trials * difference
        return above / variance**0.5 if variance > 0 else float("inf") * above

    def end(outer: float, sign: int) -> float:
        """Where the score is `sign` z, between the observed difference and the outermost one."""
        inner = (gained - lost) / trials
        for _ in range(60):
            middle = (inner + outer) / 2
            if sign * score(middle) < z:
                inner = middle
            else:
                outer = middle
        return inner

    return end(-1.0, 1), end(1.0, -1)
