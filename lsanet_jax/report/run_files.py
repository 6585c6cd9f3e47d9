"""The files of a run's report."""

import pathlib
from collections.abc import Sequence

from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation.thresholds import Rule
from lsanet_jax.report import run, run_page
from lsanet_jax.runs.layout import REPORT
from lsanet_jax.runs.workdir import check_output
from lsanet_jax.runtime.files import write_atomically


def write(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    *,
    rule: Rule | None = None,
    coverage: float | None = None,
    by: Sequence[str] = (),
    table: str | None = None,
    with_pictures: bool = True,
    trust_code: bool = False,
) -> pathlib.Path:
    """Write the page of a finished run.

    Args:
        workdir: folder of the run.
        output: file to write (default: `report.html` in the workdir).
        rule: of the operating points; None for the stored one.
        coverage: of the sets; None for the stored one.
        by: columns of subgroups.
        table: that has these columns; None for that of the run's data.
        with_pictures: show images, with heat maps.
        trust_code: for heat maps; see `trained.load`.

    Raises:
        LSANetError: see `run.read`; or the file cannot be written.
    """
    if output:
        check_output(output)
    found = run.read(
        workdir, rule=rule, coverage=coverage, by=by, table=table, trust_code=trust_code
    )
    file = pathlib.Path(output or pathlib.Path(workdir) / REPORT)
    text = run_page.render(found, with_pictures=with_pictures)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    except OSError as error:
        raise WorkdirError(f"cannot write {file}: {error}") from error
    return file
