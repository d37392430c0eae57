"""Airflow 3: bring a store up to now every hour. Put it into the DAG folder."""

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task


@task(
    retries=3,
    retry_delay=timedelta(minutes=5),
    execution_timeout=timedelta(hours=2),
)
def update_market(store: str) -> dict:
    """Fetch what the store lacks; fail, and be retried, if it lacks more."""
    import marketfetch as mf  # on the worker, not in the scheduler

    report = mf.update(store)
    if not report.complete:
        raise RuntimeError(str(report))
    return {"rows": report.rows_written, "requests": report.requests}


@dag(
    schedule="5 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # one run fetches everything that is missing
    max_active_runs=1,
)
def market_data() -> None:
    # A template: the password stays in the connection of Airflow.
    update_market("{{ conn.market.get_uri() }}")


market_data()
