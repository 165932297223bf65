"""`fer sweep`: the search, and when it has ended its report."""

from __future__ import annotations

from fer_experiments.config import Config
from fer_experiments.config.commands import command
from fer_experiments.errors import UserError, first_line
from fer_experiments.search.state import State
from fer_experiments.search.sweep import run_sweep
from fer_experiments.terminal import Echo, say, shown


def sweep(config: Config, echo: Echo = say) -> State:
    """Runs a sweep as `run_sweep` does, and writes its report, which fails no sweep if it cannot be written."""
    state = run_sweep(config, echo)
    try:
        from fer_experiments.report.report import write_report  # Plotly, which no trial needs to wait for

        echo(f"  {'see what it found':20}  {shown(write_report(config, state.id, echo))}")
    except Exception as error:
        reason = first_line(error, named=not isinstance(error, UserError))
        again = command("report", f"sweep={state.id}", config=config)
        echo(f"sweep {state.id}: no report ({reason}); `{again}` writes it")
    return state
