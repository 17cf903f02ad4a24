"""What several parts need."""

import time

import consul

PATIENCE_S = 60


def raises(kind, text, call, *args, **kwargs):
    """Calls, and wants this exception with this in its text."""
    try:
        result = call(*args, **kwargs)
    except kind as error:
        assert text in str(error), f"{error!r} does not hold {text!r}"
        return
    raise AssertionError(f"no {kind.__name__} but {result!r}")


def eventually(what, check):
    """Polls until `check` gives something true, which is returned."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not in time, last {found!r}"
        time.sleep(0.05)


def insist(call, *args, **kwargs):
    """A write, again if its outcome is unknown: it went to a leader that died before it answered,
    and may or may not take effect. Consul's clients meet the same answer with the same remedy.
    """
    while True:
        try:
            return call(*args, **kwargs)
        except consul.base.ConsulException as error:
            if "leadership lost while committing log" not in str(error):
                raise
