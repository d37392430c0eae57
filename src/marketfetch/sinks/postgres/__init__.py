"""PostgreSQL: a store that many processes may fill at once, in tables of its own or in one of yours."""

from marketfetch.sinks.postgres.board import PostgresBoard
from marketfetch.sinks.postgres.sink import PostgresSink

__all__ = ["PostgresBoard", "PostgresSink"]
