"""What is there for as long as a process lives is kept out of garbage collection."""

import gc


def settle_heap() -> None:
    """To be called once, when everything is loaded.

    A full collection looks at every object with the interpreter held, between two steps or two
    chunks of a stream: 0.2 s where torch and transformers are imported.
    """
    gc.collect()
    gc.freeze()
