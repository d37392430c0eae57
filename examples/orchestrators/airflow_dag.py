"""Airflow 3: bring a store up to now every hour. Copy this file into the folder of DAGs."""

from datetime import datetime, timedelta, timezone

from airflow.sdk import dag, task


@task(retries=3, retry_delay=timedelta(minutes=5), execution_timeout=timedelta(hours=2))
def update_market(store: str) -> dict:
    """Fetch what the store lacks; fail if something is still missing, so that Airflow retries."""
    import marketfetch as mf  # on the worker, not in the scheduler

    report = mf.update(store)
    if not report.complete:
        raise RuntimeError(str(report))
    return {"rows": report.rows_written, "requests": report.requests}


@dag(
    schedule="5 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,  # one run fetches everything that is missing
    max_active_runs=1,
)
def market_data():
    # A template: the password stays in the connection of Airflow.
    update_market("{{ conn.market.get_uri() }}")


market_data()
