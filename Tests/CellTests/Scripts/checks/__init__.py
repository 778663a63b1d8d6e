# SPDX-License-Identifier: Apache-2.0
"""The checks of a cell's API, by section; `conformance.py` runs them."""

import traceback

CHECKS = []


class Failed(Exception):
    """What was expected, and what was seen."""


def check(number, slow=None, last=False):
    """Registers a check: its number in the list of the API's checks, then its name.

    `slow` ones run only when asked for: they "wait" for some limit of time that is fixed, or for
    the "dormancy" of a stream. `last` ones run one by one, after all others.
    """

    def register(function):
        prefix = number if isinstance(number, str) else "%03d" % number
        name = "%s_%s" % (prefix, function.__name__)
        CHECKS.append((name, function, slow, last))
        return function

    return register


def same(seen, wanted, what=""):
    if seen != wanted:
        raise Failed("%s%sexpected %s, saw %s" % (
            what, ": " if what else "", short(wanted), short(seen)))


def true(condition, what, *seen):
    if not condition:
        raise Failed("%s%s" % (what, ", saw " + short(seen) if seen else ""))


def short(value):
    text = repr(value)
    return text if len(text) <= 300 else text[:150] + " … " + text[-150:]


def explain(error):
    """One line."""
    if isinstance(error, Failed):
        where = [f for f in traceback.extract_tb(error.__traceback__) if f.name not in
                 ("same", "true")]
        return "%s (line %d)" % (error, where[-1].lineno if where else 0)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "checks" in f.filename]
    place = "%s:%d" % (frames[-1].filename.split("/")[-1], frames[-1].lineno) if frames else "?"
    return "%s: %s (%s)" % (type(error).__name__, short(str(error)), place)
