"""Locks after a fork: a child must not wait for one whose thread exists in the parent only."""

from __future__ import annotations

import os
import weakref

_locked_things = weakref.WeakValueDictionary()  # by id: they need not have a hash


def renew_in_children(thing) -> None:
    """In children of this process, an object whose `_lock` was held at the fork is made anew, as if unpickled."""
    _locked_things[id(thing)] = thing


def _after_fork() -> None:
    for thing in list(_locked_things.values()):
        if thing._lock.acquire(blocking=False):  # `locked()` is not true yet of a thread that has just got it
            thing._lock.release()
        else:
            thing.__init__(*thing.__reduce__()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
