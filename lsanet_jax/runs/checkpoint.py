"""Checkpoints of a run, written by Orbax in the background.

`checkpoints/last/STEP` holds the whole training state after STEP steps, to resume from;
`checkpoints/best/EPOCH` the parameters and batch statistics of the best epoch so far. The two
newest of each are kept: the older one is the way back if the newer one is lost. Orbax does not
notice when bytes of an array change on the disk; so each checkpoint holds the SHA-256 of its items,
checked on restoring.
"""

import collections
import concurrent.futures
import contextlib
import copy
import json
import logging
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental import multihost_utils

from lsanet_jax.errors import WorkdirError
from lsanet_jax.runs import manifest
from lsanet_jax.steps import TrainState

log = logging.getLogger(__name__)

_PATIENCE = 7 * 24 * 3600  # seconds that a checkpoint may take to be written


class Model(NamedTuple):
    """What a network is, without what its training needs besides."""

    params: nnx.State
    batch_stats: nnx.State


class Checkpoints:
    """The checkpoints below a folder; a context manager that waits for writes to end."""

    def __init__(self, folder: str | pathlib.Path, *, writes: bool = True):
        """Open or create the folder.

        Args:
          folder: of the checkpoints.
          writes: False to leave all as it is, since a run may be writing there.

        Raises:
          WorkdirError: it cannot be written to.
        """
        self.folder = pathlib.Path(folder).absolute()
        self._writes = writes
        with self._writing(), _quiet(logging.ERROR):  # It warns of all that read_only switches off.
            options = ocp.CheckpointManagerOptions(
                read_only=not writes,
                preservation_policy=ocp.checkpoint_managers.LatestN(2),
                enable_async_checkpointing=True,
                async_options=ocp.options.AsyncOptions(
                    # Orbax goes by the clock, which runs on while a laptop sleeps or a job is held.
                    timeout_secs=_PATIENCE,
                    # If a folder cannot be made, it would wait minutes for the thread that does.
                    create_directories_asynchronously=False,
                ),
                cleanup_tmp_directories=True,  # what a crash or a full disk left
            )
            self._last = ocp.CheckpointManager(self.folder / "last", options=options)
            self._best = ocp.CheckpointManager(self.folder / "best", options=options)
        self._restored: dict[int, int | None] = {}  # the step that was restored, and its epoch
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._saves = collections.deque[concurrent.futures.Future]()

    def __enter__(self):
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(_only_what_we_raise())
        return self

    def __exit__(self, kind, *_):
        for close in (self._finish_saves, self._last.close, self._best.close):
            try:
                with self._writing():
                    close()
            except WorkdirError as error:
                if kind is None:
                    raise
                log.warning("%s", error)  # What ends the block says more.
        self._thread.shutdown(wait=False)
        if kind is None:  # Otherwise writes may still be failing.
            self._quiet.close()

    @property
    def last_step(self) -> int | None:
        """The step to resume after, or None."""
        self._finish_saves()
        return self._last.latest_step()

    def has_best(self, epoch: int) -> bool:
        """Whether this epoch was the best when it was saved, and is still kept."""
        self._finish_saves()
        return epoch in self._best.all_steps()

    def save_last(
        self,
        step: int,
        state: TrainState,
        means,
        meta: dict,
        digests: dict[str, str] | None = None,
    ) -> None:
        """Save the state after a step, and what the loop must remember, in the background.

        Args:
          step: steps done; if there is such a checkpoint, it stays as it is.
          state: all that changes during training.
          means: a pytree of arrays: the means over the epoch so far.
          meta: what JSON can hold.
          digests: `manifest.tensor_digests` of the state, if they are known.

        Raises:
          WorkdirError: it cannot be written; or an earlier one could not.
        """
        meta, items = copy.deepcopy(meta), {"state": state, "means": jax.tree.leaves(means)}

        def save(items):
            if step in self._last.all_steps():
                epoch = meta.get("epoch")
                if self._restored.get(step, epoch) == epoch:
                    return
                self._last.delete(step)  # It was saved before its epoch was validated.
            of_state = digests or manifest.tensor_digests(items["state"])
            of_items = {
                "state": of_state,
                "model": _model_digests(of_state),
                "means": manifest.tensor_digests(items["means"]),
            }
            self._last.save(step, args=_save(meta, items, of_items))

        self._in_background(save, items)

    def save_best(
        self, epoch: int, state: TrainState, digests: dict[str, str] | None = None
    ) -> None:
        """Save the parameters of the best epoch so far, in the background.

        Args:
          epoch: counted from 1.
          state: after it.
          digests: as in `save_last`.

        Raises:
          WorkdirError: they cannot be written; or an earlier checkpoint could not.
        """
        of_model = _model_digests(digests or manifest.tensor_digests(state))

        def save(model):
            # They are left from before a crash that lost these epochs' "last".
            for later in [e for e in self._best.all_steps() if e >= epoch]:
                self._best.delete(later)
            self._best.save(epoch, args=_save({}, {"model": model}, {"model": of_model}))

        self._in_background(save, {"params": state.params, "batch_stats": state.batch_stats})

    def _in_background(self, save: Callable[[Any], None], tree) -> None:
        """Save a copy of a tree of arrays, which the next step overwrites, in a thread of our own.

        Orbax writes in the background, but first works in Python on each array: 0.8 s an epoch of
        ResNet-18, in which steps can go on. Processes of several hosts talk to each other in it, in
        the order of their steps, and wait. At most two saves are under way; none begins after one
        that failed, which it may tell of.

        Raises:
          WorkdirError: an earlier one failed.
        """
        if jax.process_count() > 1:
            with self._writing():
                return save(tree)
        with self._writing():
            self._finish_saves(but=1)
        before = self._saves[-1] if self._saves else None

        def save_after(tree):
            if before:
                before.result()
            save(tree)

        self._saves.append(self._thread.submit(save_after, jax.tree.map(jnp.copy, tree)))

    def _finish_saves(self, but: int = 0) -> None:
        """Wait until Orbax has all saves but the last few; raises what went wrong."""
        while len(self._saves) > but:
            self._saves.popleft().result()

    def restore_last(self, state: TrainState, means=()) -> tuple[TrainState, Any, dict]:
        """Restore the newest state that is sound; newer ones are set aside with a warning.

        Args:
          state: one of the same structure, shapes and shardings; its values are not used.
          means: the same for the means; () leaves them out.

        Returns:
          (state, means, meta).

        Raises:
          WorkdirError: none is sound, or they are of another network.
        """
        leaves, structure = jax.tree.flatten(means)
        items = {"state": state} | ({"means": leaves} if leaves else {})
        *newer, oldest = sorted(self._last.all_steps(), reverse=True)
        for step in newer:
            try:
                restored = self._restore(self._last, step, items)
                break
            except WorkdirError as error:
                log.warning("%s", error)
                if self._writes:
                    self._set_aside(step)
        else:
            step, restored = oldest, self._restore(self._last, oldest, items)
        self._restored = {step: restored["meta"].get("epoch")}
        means = jax.tree.unflatten(structure, restored["means"]) if leaves else means
        return restored["state"], means, restored["meta"]

    def _set_aside(self, step: int) -> None:
        """Move a damaged checkpoint away, so that the one before it is the newest."""
        damaged = self.folder / "damaged"
        if jax.process_index() == 0:
            damaged.mkdir(exist_ok=True)
            number = sum(1 for _ in damaged.glob(f"{step}.*"))
            place = (self.folder / "last" / str(step)).rename(damaged / f"{step}.{number}")
            log.warning("moved it to %s", place)
        multihost_utils.sync_global_devices(f"checkpoint {step} is set aside")
        self._last.reload()
        log.warning("going on from the one before, %d", self.last_step)

    def restore_best(self, epoch: int, model: Model) -> Model:
        """Restore the parameters and batch statistics of the best epoch.

        Args:
          epoch: counted from 1.
          model: of the same structure, shapes and shardings; its values are not used.

        Raises:
          WorkdirError: the checkpoint is missing, damaged, or of another network.
        """
        return Model(**self._restore(self._best, epoch, {"model": model._asdict()})["model"])

    def restore_last_model(self, model: Model) -> tuple[Model, dict]:
        """Restore the newest parameters and batch statistics, without the state of the optimizer.

        Args:
          model: as in `restore_best`.

        Returns:
          (model, meta).

        Raises:
          WorkdirError: the newest checkpoint is damaged, or of another network.
        """
        step = max(self._last.all_steps())
        restored = self._restore(self._last, step, {"state": model._asdict()}, partly=True)
        return Model(**restored["state"]), restored["meta"]

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
          WorkdirError: something could not be written.
        """
        with self._writing():
            self._finish_saves()
            self._last.wait_until_finished()
            self._best.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise WorkdirError(
                f"cannot write a checkpoint below {self.folder}: {_reason(error)}. Free some "
                f"space or fix "
                "the disk, and resume with the same command: the last whole checkpoint is kept"
            ) from error

    def _restore(
        self, manager: ocp.CheckpointManager, number: int, items: dict, *, partly: bool = False
    ) -> dict:
        """Restore items of a checkpoint, or `partly` the model of the item "state" only."""
        restore = _restore_part if partly else ocp.args.StandardRestore
        abstract = {name: restore(_abstract(tree)) for name, tree in items.items()}
        args = ocp.args.Composite(sealed=ocp.args.JsonRestore(), **abstract)
        try:
            restored = manager.restore(number, args=args)
            trees, sealed = {name: restored[name] for name in items}, restored["sealed"]
            found = {name: manifest.tensor_digests(tree) for name, tree in trees.items()}
            if partly:
                found["model"] = found.pop("state")
            for name, digest in _seal(sealed["meta"], found).items():
                # Checkpoints of 0.1.0 have no digest of the model apart.
                if digest != sealed["sha256"].get(name, digest if partly else None):
                    raise ValueError(f"by its SHA-256, {name} is not what was saved")
            return trees | {"meta": sealed["meta"]}
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise WorkdirError(
                f"cannot restore the checkpoint {manager.directory / str(number)}: "
                f"{_reason(error)}; it is damaged or of another network. "
                + (
                    "Move it away to resume from the one before it"
                    if manager is self._last
                    else "Restore it from a copy, or train again in another --workdir"
                )
            ) from error


def any_to_resume(folder: pathlib.Path) -> bool:
    """Whether a folder of checkpoints has one to resume from."""
    return any(place.name.isdecimal() for place in (folder / "last").glob("*"))


def kept_model(folder: pathlib.Path, *, epoch: int, step: int) -> pathlib.Path | None:
    """Find the parameters and batch statistics after an epoch, if they are kept.

    Args:
      folder: of the checkpoints.
      epoch: counted from 1.
      step: steps done after it.
    """
    places = (folder / "best" / str(epoch) / "model", folder / "last" / str(step) / "state")
    return next((place for place in places if place.is_dir()), None)


def read_arrays(place: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint's item, read without its network and not checked.

    Returns:
      Arrays by their path, such as "params/fc/kernel/value".

    Raises:
      WorkdirError: it is damaged.
    """
    handler = ocp.PyTreeCheckpointHandler()
    try:
        # As NumPy's, they need no devices like those of the run.
        as_numpy = lambda _: ocp.RestoreArgs(restore_type=np.ndarray)
        folder = cast(Any, place)  # Orbax's annotation has etils' paths only, it takes any.
        restore_args = jax.tree.map(as_numpy, handler.metadata(folder).tree)
        tree = handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=restore_args))
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise WorkdirError(f"cannot read the checkpoint {place}: {_reason(error)}") from error
    finally:
        handler.close()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


@contextlib.contextmanager
def _only_what_we_raise() -> Iterator[None]:
    """Keeps Orbax from logging a write that fails, and TensorStore from printing all after it."""

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    before, sys.unraisablehook = sys.unraisablehook, hook
    try:
        with _quiet(logging.CRITICAL):
            yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Keep Orbax from logging below a level."""
    worth_it = lambda record: record.levelno >= level or "orbax" not in record.pathname
    logging.getLogger("absl").addFilter(worth_it)
    try:
        yield
    finally:
        logging.getLogger("absl").removeFilter(worth_it)


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    if len(text) > 300:  # What it was about comes first, the operating system's reason last.
        text = f"{text[:150]} ... {text[-150:]}"
    return f"{type(error).__name__}: {text}"


def _save(
    meta: dict, trees: dict[str, Any], digests: dict[str, dict[str, str]]
) -> ocp.args.Composite:
    """What Orbax is to save: trees of arrays, and as `sealed` the meta and the SHA-256 of all."""
    return ocp.args.Composite(
        sealed=ocp.args.JsonSave({"meta": meta, "sha256": _seal(meta, digests)}),
        **{name: ocp.args.StandardSave(tree) for name, tree in trees.items()},
    )


def _seal(meta: dict, digests: dict[str, dict[str, str]]) -> dict[str, str]:
    contents = digests | {"meta": meta}
    return {name: manifest.sha256(json.dumps(c).encode()) for name, c in contents.items()}


def _model_digests(digests: dict[str, str]) -> dict[str, str]:
    """The `manifest.tensor_digests` of a state's model, from those of the state."""
    return {
        f"['{part}']{name}": digest
        for part in sorted(Model._fields)  # as jax sorts the keys of a dict
        for name, digest in manifest.part_digests(digests, part).items()
    }


def _restore_part(tree) -> ocp.args.PyTreeRestore:
    """What Orbax is to restore of an item that holds more."""
    args = ocp.checkpoint_utils.construct_restore_args(tree)
    return ocp.args.PyTreeRestore(item=tree, restore_args=args, partial_restore=True)


def _abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
