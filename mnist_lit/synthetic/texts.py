"""Random texts for sheets: formulas, words, dates, amounts.

``^`` raises the next character, as an exponent, ``_`` lowers it.
"""

import string

import numpy as np

VARIABLES = "xxxxyyyzzaaabbbcccddnmtkp"
UNITS = (
    "kg", "cm", "mm", "km", "ml", "m", "g", "h", "min", "EUR", "USD", "x", "Nr", "pcs", "C",
    "F",
)  # fmt: skip
COMMON = "eeeetttaaaooiinnsssrrhhdllucmfygpwbvkxjqz"  # letters about as frequent as in text


def formula(random: np.random.Generator) -> str:
    """Write an expression or an equation of at most some 14 characters."""
    kind = random.random()
    side = _sum(random, letters=kind < 0.6)
    if kind > 0.9:
        return f"{side[:6]}{random.choice(['<', '>', '=', '→'])}{digits(random, 2)}"
    if random.random() < 0.7:
        side += "=" + random.choice(
            ["", digits(random, 2), digits(random, 3), _sum(random, True)[:4]]
        )
    return side


def _sum(random: np.random.Generator, letters: bool) -> str:
    terms = [_term(random, letters) for _ in range(random.integers(1, 4))]
    signs = "++++---±" if letters else "++++----×××÷÷÷***//"
    text = terms[0]
    for term in terms[1:]:
        text += str(random.choice(list(signs))) + term
    brackets = [("(", ")")] * 4 + [("[", "]"), ("{", "}")]
    if random.random() < 0.25:
        left, right = brackets[random.integers(len(brackets))]
        text = left + text + right
    return text


def _term(random: np.random.Generator, letters: bool) -> str:
    number = digits(random, 3)
    if not letters or random.random() < 0.3:
        if random.random() < 0.12:
            return number + str(random.choice(list(".,"))) + digits(random, 2)
        if random.random() < 0.08:
            return f"^{digits(random, 1)}/_{digits(random, 1)}"
        return number
    variable = str(random.choice(list(VARIABLES)))
    text = variable if random.random() < 0.4 else number[:2] + variable
    if random.random() < 0.2:
        text += "^" + str(random.integers(2, 10))
    if random.random() < 0.06:
        text = "√" + text
    return text


def digits(random: np.random.Generator, most: int) -> str:
    """Write a number of at most so many digits."""
    return "".join(map(str, random.integers(0, 10, random.integers(1, most + 1))))


def word(random: np.random.Generator) -> str:
    """Write letters like a word: all small, with a capital, or all capitals."""
    letters = "".join(random.choice(list(COMMON), random.integers(1, 9)))
    kind = random.random()
    return letters if kind < 0.45 else letters.capitalize() if kind < 0.7 else letters.upper()


def note(random: np.random.Generator) -> str:
    """Write digits as they stand beside words, units and signs."""
    number = digits(random, 4)
    day, month, year = random.integers(1, 32), random.integers(1, 13), random.integers(1900, 2100)
    point = str(random.choice(list("/.-:")))
    unit = str(random.choice(UNITS))
    capital = str(random.choice(list(string.ascii_uppercase)))
    notes = (
        f"{number} {unit}",
        f"{number}{unit}",
        f"{day}{point}{month}{point}{year % (100 if random.random() < 0.5 else 10_000)}",
        f"{number[:2]}.{digits(random, 2)}",
        f"{number[:2]},{digits(random, 3)}",
        f"{random.choice(list('$€£#'))}{number}",
        f"{number}{random.choice(['%', '/-', '.', ')', '°', '!', '?', ':', '-'])}",
        f"{capital}{number[:2]}",
        f"{number[:2]}{capital}",
        f"({number})",
        f"{random.choice(['No.', 'Nr.', 'no', 'N°', 'p.', 'S.', 'Q', 'A', 'B', 'Tel'])} {number}",
        f"{word(random)} {number}",
        f"{number} {word(random)}",
        f"{word(random)[:3]}: {number}",
        f"{number} {random.choice(['✓', '✗', '→'])} {number[:1]}",
    )
    return str(random.choice(np.array(notes, dtype=object)))
