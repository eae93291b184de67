"""Says what happens, and how long the lab has been at it."""

import time

BEGAN = time.monotonic()


# How long each scenario took, in their order.
TOOK = {}


def table():
    """What took how long, a line each."""
    for what, seconds in TOOK.items():
        print(f"{seconds:7.1f} s  {what}")
    print(f"{time.monotonic() - BEGAN:7.1f} s  in all", flush=True)


def say(what):
    print(f"  [{time.monotonic() - BEGAN:5.1f} s] {what}", flush=True)
