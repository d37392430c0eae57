"""Dagster: bring a store up to now every hour.

Try it with `dagster dev -f dagster_job.py`.
"""

import os

from dagster import (
    Definitions,
    MaterializeResult,
    RetryPolicy,
    ScheduleDefinition,
    asset,
    define_asset_job,
)


@asset(retry_policy=RetryPolicy(max_retries=3, delay=300), pool="market")
def market() -> MaterializeResult:
    """Fetch what the store lacks; fail, and be retried, if it lacks more."""
    import marketfetch as mf

    report = mf.update(os.environ["MARKET_STORE"])
    if not report.complete:
        raise RuntimeError(str(report))
    return MaterializeResult(
        metadata={"rows": report.rows_written, "requests": report.requests}
    )


update = define_asset_job("update_market", selection=[market])
defs = Definitions(
    assets=[market],
    jobs=[update],
    schedules=[ScheduleDefinition(job=update, cron_schedule="5 * * * *")],
)
