"""DuckDB: what is kept, and every query.

`schema` has the tables and their migrations. `connection` opens the file; on it build `queue` (jobs), `summaries` (what
pages show at once) and `database` (answers, comparisons, scores, and all of them together). `protocol` has what can be
asked of a store from anywhere; `sharing` and `owner` let several processes do so although only one may hold the file,
and `spool` carries finished batches from a worker to it. `files` makes what is beside a store for its user only.
"""

from probing.store.protocol import Store
from probing.store.sharing import default_path, open_snapshot, open_store

__all__ = ["Store", "default_path", "open_snapshot", "open_store"]
