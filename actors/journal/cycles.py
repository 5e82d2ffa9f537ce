"""Reference cycles are looked for seldom.

Python looks for them after every 700 objects that stay, and from time to time through all that there are. A door with a thousand open
streams spent a sixth of its time so, and found next to nothing: what we make on the hot path goes by its count of references.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 50_000, 20, 50
"""Objects that stay until the young ones are looked through; so many times that until the middle-aged ones, and then the old ones, are."""


def look_seldom() -> None:
    """From now on. What is there now (modules, compiled code) is looked through no more."""
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
