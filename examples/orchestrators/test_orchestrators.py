"""The examples are run by the orchestrators, against exchanges on loopback.

`make orchestrators` calls these tests, in environments that have what they
import; the other tests of the project need no orchestrator.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import marketfetch as mf
from marketfetch.testing import SimulatedExchange, separate_registry
from tests.support.loopback import exchanges_on_loopback

pytestmark = [
    # What they deprecate, or leave open, is not ours to repair.
    pytest.mark.filterwarnings("ignore"),
    # They start servers and make databases.
    pytest.mark.timeout(300),
]
WEEK = {
    "dagster/asset_partition_range_start": "2026-06-01",
    "dagster/asset_partition_range_end": "2026-06-07",
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store, named in the environment, and an empty home."""
    store = f"sqlite:{tmp_path / 'market.sqlite'}"
    for name, value in {
        "MARKET_STORE": store,
        "XDG_STATE_HOME": str(tmp_path),  # the board of used budgets
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return store


@pytest.fixture
def exchange(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SimulatedExchange]:
    with separate_registry(), exchanges_on_loopback(monkeypatch) as exchange:
        yield exchange


def pages(exchange: SimulatedExchange) -> int:
    """Count the requests for rows; others are for a clock or a listing."""
    paths = [request.path for request in exchange.request_log.latest]
    assert len(paths) == exchange.request_log.total
    return sum("klines" in path or "candles" in path for path in paths)


def held(store: str) -> set[tuple[str, int]]:
    """Return how many rows the series of each exchange have."""
    with mf.open(store) as reader:
        return {(each.series.exchange, each.rows) for each in reader.series()}


def test_dagster_fetches_a_day_and_a_week_in_one_run(
    exchange: SimulatedExchange, store: str
) -> None:
    import dagster
    from dagster_assets import candles, defs

    job = defs.resolve_job_def("daily_candles")
    with dagster.DagsterInstance.ephemeral() as instance:

        def run(days: str | dict[str, str]) -> tuple[int, dict[str, object]]:
            """Return how many partitions a run made, and its metadata."""
            ended = (
                job.execute_in_process(partition_key=days, instance=instance)
                if isinstance(days, str)
                else dagster.materialize(
                    [candles], instance=instance, tags=days
                )
            )
            assert ended.success
            made = [
                event.materialization
                for event in ended.get_asset_materialization_events()
            ]
            told = {name: of.value for name, of in made[0].metadata.items()}
            return len(made), told

        first = run("2026-06-03")
        asked = exchange.request_log.total
        assert first == (1, {"rows": 3 * 24, "requests": asked})
        assert pages(exchange) == 3

        assert run("2026-06-03") == (1, {"rows": 3 * 24, "requests": 0})
        assert exchange.request_log.total == asked

        week = run(WEEK)  # what is missing is two days and four days
        more = exchange.request_log.total - asked
        assert week == (7, {"rows": 3 * 7 * 24, "requests": more})
        assert pages(exchange) == 3 + 3 * 2

        assert run(WEEK) == (7, {"rows": 3 * 7 * 24, "requests": 0})
        assert exchange.request_log.total == asked + more
        assert len(instance.get_materialized_partitions(candles.key)) == 7
    assert held(store) == {("binance-usdm", 7 * 24)}


@pytest.mark.usefixtures("store")
def test_dagster_makes_one_run_of_a_backfill_and_one_each_night() -> None:
    import dagster
    from dagster_assets import candles, defs

    assert candles.backfill_policy == dagster.BackfillPolicy.single_run()
    schedule = defs.resolve_schedule_def("daily_candles_schedule")
    assert schedule.cron_schedule == "5 0 * * *"
    with dagster.build_schedule_context(
        scheduled_execution_time=datetime(2026, 6, 9, 0, 5, tzinfo=UTC),
        repository_def=defs.get_repository_def(),
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests
    assert request.partition_key == "2026-06-08"


def test_prefect_maps_a_task_over_the_exchanges(
    exchange: SimulatedExchange, store: str
) -> None:
    from prefect.testing.utilities import prefect_test_harness
    from prefect_flow import market_data

    rows = [3 * 7 * 24, 2 * 7 * 24]
    with prefect_test_harness():
        first = market_data("2026-06-01", "2026-06-08")
        asked = exchange.request_log.total
        assert [task["rows"] for task in first] == rows
        assert sum(task["requests"] for task in first) == asked
        assert pages(exchange) == 3 + 2 * 2  # pages of OKX have 100 rows

        again = market_data("2026-06-01", "2026-06-08")
        assert [task["rows"] for task in again] == rows
        assert [task["requests"] for task in again] == [0, 0]
        assert exchange.request_log.total == asked
    assert held(store) == {("binance-usdm", 7 * 24), ("okx", 7 * 24)}


def test_airflow_fetches_the_data_interval(
    exchange: SimulatedExchange, store: str
) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.utils.db import initdb

    initdb()
    bag = DagBag(str(Path(__file__).with_name("airflow_dag.py")))
    assert not bag.import_errors
    dag = bag.dags["market_data"]
    assert dag.max_active_runs == 1

    def run() -> dict[str, int]:
        """Return what the task for 2 June returned."""
        second, third = (
            datetime(2026, 6, day, 0, 5, tzinfo=UTC) for day in (2, 3)
        )
        ended = dag.test(logical_date=third)
        assert ended.state == "success"
        assert ended.data_interval_start == second
        assert ended.data_interval_end == third
        (task,) = ended.get_task_instances()
        return task.xcom_pull("candles")

    first = run()
    asked = exchange.request_log.total
    assert first == {"rows": 3 * 24, "requests": asked}
    assert pages(exchange) == 3

    assert run() == {"rows": 3 * 24, "requests": 0}
    assert exchange.request_log.total == asked
    assert held(store) == {("binance-usdm", 24)}
    with mf.open(store) as reader:  # from midnight, not from 00:05
        midnight = datetime(2026, 6, 2, tzinfo=UTC).timestamp() * 1000
        assert {each.first for each in reader.series()} == {midnight}
