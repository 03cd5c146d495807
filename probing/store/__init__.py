"""DuckDB: what is kept, and every query.

`schema` has the tables and their migrations, `connection` opens the file. The tables each have the connection: `queue`
(jobs), `leases` (how they and their batches are lent to workers), `rollouts` (answers), `comparisons` (selections, and
the runs they are made of), `runs` (scores), `summaries` (what pages show at once) and `evaluations` (what was measured
beside scores); `database` holds them together. `protocol` has what can be asked of a store from anywhere; `sharing` and
`owner` let several processes do so although only one may hold the file. Finished batches come from a worker through the
`spool`, and `batches` takes them in. `files` makes what is beside a store for its user only.
"""

from probing.store.protocol import Store
from probing.store.sharing import default_path, open_snapshot, open_store

__all__ = ["Store", "default_path", "open_snapshot", "open_store"]
