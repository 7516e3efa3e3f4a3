"""Tasks handed to many processes: those of this machine, or of a Ray cluster.

A process may be killed under its work, by the system for want of memory or by a decoder that crashes. Its
task is then tried once more, alone; if that ends the same way, the task is `Lost`, and the others go on.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from datasets_scripts.preparation_report import PrepareError

PROCESSES, RAY = ENGINES = ("processes", "ray")
RAY_ADDRESS = "RAY_ADDRESS"
Task, Result = Any, Any
Work = Callable[[Task], Result]


@dataclass(frozen=True)
class Lost:
    """In place of a result: the process at this task was killed, twice."""


@dataclass(frozen=True)
class Engine:
    """What runs the tasks.

    Args:
        name: processes or ray.
        workers: tasks at a time; None means one a CPU. A cluster runs as many as it has CPUs.
        ray_address: of a running Ray cluster; None means that of RAY_ADDRESS, or else a Ray of this machine
            that is started for the run.

    Raises:
        ValueError: a value out of its range.
    """

    name: str = PROCESSES
    workers: int | None = None
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise ValueError(f"engine is {self.name}; it must be {' or '.join(ENGINES)}.")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; it must be 1 or more.")
        if self.ray_address is not None and self.name != RAY:
            raise ValueError("ray_address is given, but not --engine ray; add it, or leave the address out.")

    def run(self, work: Work, tasks: list[Task]) -> Iterator[tuple[int, Result | Lost]]:
        """The place of each task and its result, in the order in which they are done.

        Args:
            work: a function of a module, so that other processes find it. What it raises ends the run.

        Raises:
            PrepareError: there is no Ray, or none answers.
        """
        workers = min(self.workers or os.cpu_count() or 1, len(tasks))
        if self.name == RAY:
            yield from _run_on_ray(work, tasks, workers, self.ray_address or os.environ.get(RAY_ADDRESS))
        elif workers == 1:
            yield from enumerate(map(work, tasks))
        else:
            yield from _run_in_processes(work, tasks, workers)


def _run_in_processes(work: Work, tasks: list[Task], workers: int) -> Iterator[tuple[int, Result | Lost]]:
    waiting = list(range(len(tasks)))[::-1]
    while waiting:
        at_work: dict[Future, int] = {}
        with _pool(workers) as pool:
            try:
                while waiting or at_work:
                    while waiting and len(at_work) < workers:
                        future = pool.submit(work, tasks[waiting[-1]])
                        at_work[future] = waiting.pop()
                    for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield at_work.pop(future), result
            except BrokenProcessPool:
                pass
        # One of these ended the pool: alone, each tells whether it was that one.
        for place in sorted(at_work.values()):
            yield place, _alone(work, tasks[place])


def _alone(work: Work, task: Task) -> Result | Lost:
    with _pool(1) as pool:
        try:
            return pool.submit(work, task).result()
        except BrokenProcessPool:
            return Lost()


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_the_parent
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    """Let this worker end when its parent has ended, even by a kill: it must not go on writing."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_on_ray(
    work: Work, tasks: list[Task], workers: int, address: str | None
) -> Iterator[tuple[int, Result | Lost]]:
    with connected_ray(workers, address) as ray:
        remote = ray.remote(num_cpus=1, max_retries=1)(work)
        places = {remote.remote(task): place for place, task in enumerate(tasks)}
        try:
            while places:
                (done,), _ = ray.wait(list(places), num_returns=1)
                yield places.pop(done), _ray_result(ray, done)
        finally:
            for reference in places:
                ray.cancel(reference, force=True)


def _ray_result(ray: Any, reference: Any) -> Result | Lost:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PrepareError):
            raise error.cause from error
        raise PrepareError(
            "A machine of the Ray cluster could not begin its work; each needs this project with the same "
            f"versions of its libraries. Ray says: {str(error.cause).splitlines()[0]}"
        ) from error
    except ray.exceptions.RayError:
        return Lost()


@contextmanager
def connected_ray(workers: int, address: str | None) -> Iterator[Any]:
    """The module `ray`, connected to the cluster, or to one of this machine that ends with the run.

    Raises:
        PrepareError: Ray is not installed, or no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers of its use
    # Under `uv run`, Ray would copy the working folder, recordings and all, to every machine, and there make
    # an environment of its own. It reads this when it is imported.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError as error:
        raise PrepareError(
            "--engine ray needs Ray, which is not installed; `pip install ray` brings it."
        ) from error
    if ray.is_initialized():
        yield ray
        return
    local = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="error", **local)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise PrepareError(
            f"No Ray cluster answers at {address or 'this machine'} ({error}); correct --ray-address, or "
            "start one by `ray start`."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
