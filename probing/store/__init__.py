"""DuckDB: what is kept, and every query.

`schema` has the tables and their migrations. `connection` opens the file; on it build `queue` (jobs), `summaries` (what
pages show at once) and `database` (answers, comparisons, scores, and all of them together). `sharing` lets several
processes use one store although only one may hold its file, and `spool` carries finished batches from a worker to it.
"""

from probing.store.sharing import default_path, open_snapshot, open_store

__all__ = ["default_path", "open_snapshot", "open_store"]
