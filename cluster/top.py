"""`easel top`: watches a running cluster in the terminal."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live

from easel.cluster.top_client import Cluster, TopClient, WatchFailed
from easel.cluster.top_view import TopView

Sleep = Callable[[float], None]


@dataclass(slots=True)
class Rates:
    """Tokens a second of each replica, between the last two looks at it."""

    _last: Cluster | None = None
    _rates: dict[str, float] = field(default_factory=dict[str, float])

    def of(self, cluster: Cluster) -> dict[str, float]:
        """After another look."""
        last, self._last = self._last, cluster
        if last is None or cluster.time <= last.time:
            return self._rates
        before = {replica.id: replica.committed_tokens for replica in last.replicas}
        self._rates = {
            replica.id: max(0, replica.committed_tokens - before[replica.id]) / (cluster.time - last.time)
            for replica in cluster.replicas
            if replica.id in before
        }
        return self._rates


def show_once(client: TopClient, console: Console, seconds: float, sleep: Sleep = time.sleep) -> None:
    """Print the cluster as it is, with the rates of the last `seconds`. Raises WatchFailed."""
    rates = Rates()
    rates.of(client.cluster())
    sleep(seconds)
    cluster = client.cluster()
    console.print(TopView(cluster, client.url, rates.of(cluster)))


def watch(client: TopClient, console: Console, seconds: float, sleep: Sleep = time.sleep) -> None:
    """Draw the cluster anew every `seconds`, until Ctrl-C.

    Raises WatchFailed when there is nothing to be seen at the beginning, or nothing that waiting would help.
    """
    rates, cluster = Rates(), client.cluster()
    view = TopView(cluster, client.url, rates.of(cluster))
    try:
        with Live(view, console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                sleep(seconds)
                view = _next(client, view, rates)
                live.update(view, refresh=True)
    except KeyboardInterrupt:
        console.print(view)  # the last look stays when the screen is given back


def _next(client: TopClient, view: TopView, rates: Rates) -> TopView:
    try:
        cluster = client.cluster()
    except WatchFailed as error:
        if not error.passing:
            raise
        return TopView(view.cluster, view.url, view.rates, error.problem)
    return TopView(cluster, view.url, rates.of(cluster))
