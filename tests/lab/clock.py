"""Says what happens, and how long the lab has been at it."""

import time

BEGAN = time.monotonic()


def say(what):
    print(f"  [{time.monotonic() - BEGAN:5.1f} s] {what}", flush=True)
