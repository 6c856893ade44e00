"""Peers for whole flows, which would be out of place among the queues: each task is a piece of somebody's program."""

from __future__ import annotations

from bench.peers.catalog import POSTGRES, Peer

ORCHESTRATORS = (
    Peer(
        name="Airflow",
        lock="airflow",
        environment={
            "AIRFLOW_HOME": "{home}",
            "AIRFLOW__API__BASE_URL": "http://127.0.0.1:{port}",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": "{port}",
            "AIRFLOW__CORE__DAGS_FOLDER": "{apps}/dags",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2{address}",
            "BENCH_BASE": "http://127.0.0.1:{port}",
        },
        serve=["{bin}/airflow", "standalone"],
        submit=["{bin}/python", "{apps}/airflow_app.py"],
        settings="LocalExecutor on PostgreSQL, all its services by `airflow standalone`, defaults otherwise",
        durable=POSTGRES,
        loses="task instances without heartbeat for five minutes fail or are retried",
        runs_flows=True,
    ),
    Peer(
        name="Prefect",
        lock="prefect",
        environment={
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": "http://127.0.0.1:{port}/api",
            "PREFECT_HOME": "{home}",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg{address}",
            "PREFECT_SERVER_UI_ENABLED": "false",
        },
        serve=["{bin}/prefect", "server", "start", "--host", "127.0.0.1", "--port", "{port}"],
        submit=["{bin}/python", "{apps}/prefect_app.py"],
        settings="server on PostgreSQL; the flow runs its tasks in its own process, wide in threads, as by default",
        durable="states are told to the server as they come; nothing is dispatched, a task is a function call",
        loses="a flow whose process dies is marked as crashed where an automation watches for that",
        runs_flows=True,
    ),
)
