"""Checkpoints of a run, written by Orbax in the background.

`checkpoints/last/STEP` holds the whole training state after so many steps, to resume from;
`checkpoints/best/EPOCH` the parameters and batch statistics of the best epoch so far. The two newest of
each are kept: the older one is the way back if the newer one is lost.
"""

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from lsanet_jax.errors import WorkdirError
from lsanet_jax.steps import TrainState

log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints below a folder; a context manager that waits for writes to end."""

    def __init__(self, folder: str | pathlib.Path):
        """Open or create the folder."""
        self.folder = pathlib.Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(2),
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # what a crash or a full disk left
        )
        self._last = ocp.CheckpointManager(self.folder / "last", options=options)
        self._best = ocp.CheckpointManager(self.folder / "best", options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._last.close()
        self._best.close()

    @property
    def last_step(self) -> int | None:
        """The step to resume after, or None."""
        return self._last.latest_step()

    def has_best(self, epoch: int) -> bool:
        """Whether this epoch was the best when it was saved, and is still kept."""
        return epoch in self._best.all_steps()

    def save_last(self, step: int, state: TrainState, means, meta: dict) -> None:
        """Save the state after a step, and what the loop must remember, in the background.

        Args:
          step: steps done; if there is such a checkpoint, it stays as it is.
          state: all that changes during training.
          means: a pytree of arrays: the means over the epoch so far.
          meta: what JSON can hold.

        Raises:
          WorkdirError: it cannot be written; or an earlier one could not.
        """
        if step in self._last.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            means=ocp.args.StandardSave(jax.tree.leaves(means)),
            meta=ocp.args.JsonSave(meta),
        )
        with self._writing():
            self._last.save(step, args=args)

    def save_best(self, epoch: int, state: TrainState) -> None:
        """Save the parameters of the best epoch so far, in the background.

        Raises:
          WorkdirError: they cannot be written; or an earlier checkpoint could not.
        """
        model = {"params": state.params, "batch_stats": state.batch_stats}
        with self._writing():
            if self.has_best(epoch):  # from before a crash that lost this epoch's "last"
                self._best.delete(epoch)
            self._best.save(epoch, args=ocp.args.StandardSave(model))

    def restore_last(self, state: TrainState, means=()) -> tuple[TrainState, Any, dict]:
        """Restore the newest state that is sound; damaged ones are set aside with a warning.

        Args:
          state: one of the same structure, shapes and shardings; its values are not used.
          means: likewise; () leaves them alone.

        Returns:
          (state, means, meta).

        Raises:
          WorkdirError: none is sound, or they are of another network.
        """
        leaves, structure = jax.tree.flatten(means)
        items = {
            "state": ocp.args.StandardRestore(_abstract(state)),
            "meta": ocp.args.JsonRestore(),
        }
        if leaves:
            items["means"] = ocp.args.StandardRestore(_abstract(leaves))
        while True:
            step = self.last_step
            try:
                restored = self._restore(self._last, step, ocp.args.Composite(**items))
            except WorkdirError as error:
                if len(self._last.all_steps()) == 1:
                    raise
                log.warning("%s", error)
                self._set_aside(step)
            else:
                means = jax.tree.unflatten(structure, restored.means) if leaves else means
                return restored.state, means, restored.meta

    def _set_aside(self, step: int) -> None:
        """Move a damaged checkpoint away, so that the one before it is the newest."""
        damaged = self.folder / "damaged"
        damaged.mkdir(exist_ok=True)
        number = sum(1 for _ in damaged.glob(f"{step}.*"))
        place = (self.folder / "last" / str(step)).rename(damaged / f"{step}.{number}")
        self._last.reload()
        log.warning("moved it to %s; going on from the one before, %d", place, self.last_step)

    def restore_best(self, epoch: int, state: TrainState) -> TrainState:
        """Restore the parameters and batch statistics of the best epoch into `state`.

        Raises:
          WorkdirError: the checkpoint is missing, damaged, or of another network.
        """
        model = {"params": state.params, "batch_stats": state.batch_stats}
        args = ocp.args.StandardRestore(_abstract(model))
        restored = self._restore(self._best, epoch, args)
        return state._replace(**restored)

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
          WorkdirError: something could not be written.
        """
        with self._writing():
            self._last.wait_until_finished()
            self._best.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise WorkdirError(
                f"cannot write a checkpoint below {self.folder}: {type(error).__name__}: "
                f"{str(error).splitlines()[0][:300]}. Make room or mend the disk, and resume with the "
                "same command: the last whole checkpoint is kept"
            ) from error

    def _restore(self, manager: ocp.CheckpointManager, epoch: int, args):
        try:
            return manager.restore(epoch, args=args)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise WorkdirError(
                f"cannot restore the checkpoint {manager.directory / str(epoch)}: "
                f"{type(error).__name__}: {str(error).splitlines()[0][:300]}; it is damaged or of "
                "another network. Move it away to resume from the one before it"
            ) from error


def _abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
