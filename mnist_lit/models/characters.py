"""Classes of the detector: the ten digits, and letters and signs that compete with them.

A letter or sign is dropped when a picture is read. Its class exists so that the network learns what
it is, not only that it is not a digit.
"""

import string

DIGITS = tuple(string.digits)
NUM_DIGITS = len(DIGITS)
LETTERS = string.ascii_lowercase  # each with its capital
# Signs of one class look alike.
SIGNS = ("+±", "-–~_", "([{<", ")]}>", "/|\\!", "=÷:;\"'", "√✓?", "%&@#", "€$£§", "×*✗→")
CLASSES: tuple[str, ...] = (*DIGITS, *LETTERS, *SIGNS)
NUM_CLASSES = len(CLASSES)
FIRST_SIGN = NUM_DIGITS + len(LETTERS)
# Alone, nobody can tell these from a digit. Within a word they are letters.
AMBIGUOUS = "OoIlq|"
_CLASS_OF = {character: number for number, group in enumerate(CLASSES) for character in group}


def class_of(character: str) -> int:
    """Return the class of a character, for a capital that of the small letter; -1 for none."""
    return _CLASS_OF.get(character.lower(), -1)
