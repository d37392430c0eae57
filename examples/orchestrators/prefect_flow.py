"""Prefect 3: bring a store up to now every hour.

`python prefect_flow.py` serves the flow.
"""

import os

from prefect import flow, task


@task(retries=3, retry_delay_seconds=300, timeout_seconds=7200)
def update_market(store: str) -> dict:
    """Fetch what the store lacks; fail, and be retried, if it lacks more."""
    import marketfetch as mf

    report = mf.update(store)
    if not report.complete:
        raise RuntimeError(str(report))
    return {"rows": report.rows_written, "requests": report.requests}


@flow(log_prints=True)
def market_data() -> None:
    # From the environment: the parameters of a run are shown to everybody.
    print(update_market(os.environ["MARKET_STORE"]))


if __name__ == "__main__":
    market_data.serve(name="hourly", cron="5 * * * *", limit=1)
