"""DuckDB: what is kept, and every query.

`schema` has the tables and their migrations, `database` every query and transaction, `sharing` lets several processes
use one store although only one may hold its file, and `spool` carries finished batches from a worker to that one.
"""

from probing.store.sharing import default_path, open_store

__all__ = ["default_path", "open_store"]
