"""Cancels a coroutine at the place where it waits for the n-th time."""

import asyncio
import gc
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def cancelled_at(coroutine: Coroutine[Any, Any, T], at: int) -> Generator[Any, Any, T]:
    """Runs `coroutine`, and cancels the task that runs it when it waits for the time `at`, counted from 0."""
    waits = 0
    thrown: BaseException | None = None
    while True:
        try:
            future = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            # Kept, it would keep its traceback, and that every frame with what it holds.
            thrown = None
        if waits == at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        waits += 1
        try:
            yield future
        except BaseException as error:
            thrown = error


async def run_cancelled_at(coroutine: Coroutine[Any, Any, T], at: int) -> bool:
    """The same in a task of its own. Whether it came so far."""
    task = asyncio.ensure_future(_awaited(coroutine, at))
    await asyncio.wait((task,))
    is_cancelled = task.cancelled()
    if not is_cancelled:
        task.result()
    del task, coroutine
    # What was thrown keeps its traceback, and that what the frames held.
    gc.collect()
    return is_cancelled


async def _awaited(coroutine: Coroutine[Any, Any, T], at: int) -> T:
    return await cancelled_at(coroutine, at)
