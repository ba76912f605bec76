"""How a program loads its hundreds of modules in the least time: nothing is done that may be done later, or never."""

import gc
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def swift_loading() -> Generator[None]:
    """Meanwhile load modules; what they are made of is never looked through by the garbage collector.

    A model of pydantic's that is defined meanwhile, as all of MCP's are, is built once it is used: most never are.
    """
    gc.disable()
    from pydantic import BaseModel

    before = BaseModel.model_config.copy()
    BaseModel.model_config["defer_build"] = True
    try:
        yield
    finally:
        BaseModel.model_config = before
        gc.freeze()
        gc.set_threshold(*_SELDOM)
        gc.enable()


_SELDOM = (10_000, 20, 50)
"""Ours: after how many new objects they are looked through. Those of a call hold few cycles, and are thousands."""
