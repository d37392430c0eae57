"""What DuckDB and SQLite do differently, each in its own class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import ClassVar, Generic, TypeVar

from marketfetch.sinks.sql.coverage_schema import DbConnection
from marketfetch.sinks.sql.file_tables import FileTable, LabelledRows, RowQuery
from marketfetch.values.pages import Columns
from marketfetch.values.spans import Span

__all__ = ["FileDialect"]

_C = TypeVar("_C", bound=DbConnection)


class FileDialect(ABC, Generic[_C]):
    """Opens a file, translates errors of its driver, describes its tables, and merges and reads rows."""

    __slots__ = ()

    _scheme: ClassVar[str]
    """The scheme of the store in a URL such as `sqlite:market.db`."""
    _clustered: ClassVar[bool]
    """Whether tables lie in the order of their key."""
    _time_type: ClassVar[str]
    """The SQL type of `open_time` in our own tables."""
    _typed: ClassVar[bool]
    """Whether the type of a column is binding."""
    _view_columns: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """The columns that a view has beside those of the dataset, by name, and what they show."""

    @abstractmethod
    def _connected(self) -> AbstractContextManager[_C]:
        """Open the file and close it again; raises SinkError."""

    @abstractmethod
    def _connected_to_read(self) -> AbstractContextManager[_C]:
        """Open the file read-only; needs no right to write, and raises SinkError."""

    def _writing(self) -> AbstractContextManager[_C]:
        """Open the file to change something; raises SinkError."""
        return self._connected()

    @abstractmethod
    def _transaction(self, connection: _C) -> AbstractContextManager[None]:
        """Commit the block, or roll it back if it raises; translates errors of the driver to SinkError."""

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Translate errors of the driver in the block to SinkError."""

    @abstractmethod
    def _types(self, connection: _C, name: str) -> dict[str, str]:
        """Return the type of each column of a table or view; empty if there is no such table."""

    @abstractmethod
    def _required(self, connection: _C, name: str) -> set[str]:
        """Return the columns of a table that must not be NULL and have no default."""

    @abstractmethod
    def _is_view(self, connection: _C, name: str) -> bool:
        """Tell whether there is a view of this name."""

    @abstractmethod
    def _is_made_by(self, connection: _C, view: str, statement: str) -> bool:
        """Tell whether a statement has made a view, whose columns are right."""

    @abstractmethod
    def _create(self, table: FileTable, columns: str) -> str:
        """Write the statement that makes a table of ours."""

    @abstractmethod
    def _view_time(self) -> str:
        """Write the expression by which a view shows `r.open_time`."""

    @abstractmethod
    def _check(self, connection: _C, table: FileTable) -> None:
        """Raise ConfigurationError if rows cannot be merged into a table of the user's."""

    @abstractmethod
    def _inside(self, table: FileTable) -> str:
        """Write the condition for the rows of a series in a span; its parameters are labels and `_bounds`."""

    @abstractmethod
    def _bounds(self, connection: _C, table: FileTable, span: Span) -> tuple[int | str, int | str]:
        """Return the two last parameters of `_inside` for a span."""

    @abstractmethod
    def _merge(self, connection: _C, table: FileTable, parts: Sequence[LabelledRows]) -> None:
        """Merge rows of several series into a table, in order: a later part overwrites an earlier one."""

    @abstractmethod
    def _rows(self, connection: _C, table: FileTable, query: RowQuery) -> Columns:
        """Read the rows of a query, sorted by time."""
