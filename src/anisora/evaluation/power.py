"""How many prompts a comparison needs: the normal approximation for the mean of paired differences.

n = (z_(1-alpha/2) + z_(1-beta))^2 s_d^2 / delta^2, with s_d the standard deviation of the difference from prompt to
prompt (arXiv 2411.00640, section 5).
"""

from __future__ import annotations

import math

from anisora.errors import BadInput


def prompts_needed(difference: float, deviation: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Prompts at which a true `difference` is found with probability `power`, by a two-sided test at level `alpha`."""
    _check(deviation, power, alpha)
    if not difference:
        raise BadInput("no number of prompts finds a difference of 0", got=difference, expected="another difference")
    return max(2, math.ceil((_reach(power, alpha) * deviation / difference) ** 2 - 1e-9))


def detectable_difference(num_prompts: int, deviation: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that `num_prompts` prompts find with probability `power`."""
    _check(deviation, power, alpha, num_prompts)
    return _reach(power, alpha) * deviation / math.sqrt(num_prompts)


def power_of(num_prompts: int, difference: float, deviation: float, alpha: float = 0.05) -> float:
    """The probability that `num_prompts` prompts find a true `difference`, on its own side."""
    from scipy.stats import norm

    _check(deviation, 0.5, alpha, num_prompts)
    if deviation == 0:
        return 1.0 if difference else alpha / 2
    return float(norm.cdf(abs(difference) * math.sqrt(num_prompts) / deviation - norm.ppf(1 - alpha / 2)))


def _reach(power: float, alpha: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2) + norm.ppf(power))


def _check(deviation: float, power: float, alpha: float, num_prompts: int = 1) -> None:
    if deviation < 0 or not 0 < power < 1 or not 0 < alpha < 1 or num_prompts < 1:
        raise BadInput(
            "no such comparison",
            got=f"deviation {deviation}, power {power}, alpha {alpha}, {num_prompts} prompts",
            expected="a deviation of 0 or more, power and alpha between 0 and 1, at least 1 prompt",
        )
