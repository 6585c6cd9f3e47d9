"""Checkpoints of a run, written by Orbax in the background.

`checkpoints/last/EPOCH` holds the whole training state, to resume from; `checkpoints/best/EPOCH` the
parameters and batch statistics of the best epoch so far. The two newest of each are kept: the older
one is the way back if the newer one is lost.
"""

import logging
import pathlib

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
        )
        self._last = ocp.CheckpointManager(self.folder / "last", options=options)
        self._best = ocp.CheckpointManager(self.folder / "best", options=options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._last.close()
        self._best.close()

    @property
    def last_epoch(self) -> int | None:
        """The epoch to resume from, or None."""
        return self._last.latest_step()

    def save_last(self, epoch: int, state: TrainState, meta: dict) -> None:
        """Save the state after an epoch, and what the loop must remember, in the background."""
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._last.save(epoch, args=args)

    def save_best(self, epoch: int, state: TrainState) -> None:
        """Save the parameters of the best epoch so far, in the background."""
        if epoch in self._best.all_steps():  # from before a crash that lost this epoch's "last"
            self._best.delete(epoch)
        model = {"params": state.params, "batch_stats": state.batch_stats}
        self._best.save(epoch, args=ocp.args.StandardSave(model))

    def restore_last(self, state: TrainState) -> tuple[int, TrainState, dict]:
        """Restore the newest state that is sound; damaged ones are set aside with a warning.

        Args:
          state: one of the same structure, shapes and shardings; its values are not used.

        Returns:
          (epoch, state, meta).

        Raises:
          WorkdirError: none is sound, or they are of another network.
        """
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(_abstract(state)), meta=ocp.args.JsonRestore()
        )
        while True:
            epoch = self.last_epoch
            try:
                restored = self._restore(self._last, epoch, args)
                return epoch, restored.state, restored.meta
            except WorkdirError as error:
                if len(self._last.all_steps()) == 1:
                    raise
                log.warning("%s", error)
                self._set_aside(epoch)

    def _set_aside(self, epoch: int) -> None:
        """Move a damaged checkpoint away, so that the one before it is the newest."""
        damaged = self.folder / "damaged"
        damaged.mkdir(exist_ok=True)
        number = sum(1 for _ in damaged.glob(f"{epoch}.*"))
        place = (self.folder / "last" / str(epoch)).rename(damaged / f"{epoch}.{number}")
        self._last.reload()
        log.warning("moved it to %s; going on from the one before, %d", place, self.last_epoch)

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
        """Wait until everything is on disk; raises what the background writes raised."""
        self._last.wait_until_finished()
        self._best.wait_until_finished()

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
