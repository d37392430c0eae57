"""PostgreSQL: a store that many processes may fill at once, in tables of its own or in one of yours."""

from marketfetch.errors import ConfigurationError

try:
    from marketfetch.sinks.postgres.board import PostgresBoard
    from marketfetch.sinks.postgres.sink import PostgresSink
except ImportError as error:  # psycopg is there, but no libpq that it could call
    raise ConfigurationError(
        f"postgresql: psycopg cannot be imported ({str(error).partition(chr(10))[0]}); "
        "pip install 'psycopg[binary,pool]'. Where that has no wheel, install libpq "
        "(Debian, Ubuntu: libpq5; macOS: brew install libpq)"
    ) from error

__all__ = ["PostgresBoard", "PostgresSink"]
