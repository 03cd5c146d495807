"""The tables of a store, and the steps that bring an older store to the present version.

A graph may have a million edges, and a store many runs of a hundred samples each. What there is of each edge is
therefore in tables without an index, `scores` and `edge_values`, whose other columns are small numbers in order, which
take next to no room. Their `edge` is a place in the canonical order of a graph's edges (`ResidualGraph.edges`); the
view `edges` names it, and `scores_long` presents scores as rows of (run, question, edge, score) for people who write
SQL. `comparison_runs` says which runs a comparison is made of. The `*_summaries` hold what pages show of a comparison
at once; their `side` is what the base is compared with: `tuned`, or a step of its training. An evaluation has named
units and questions, and `measurements` one array over its questions for each unit and measure, which the view
`measurements_long` presents as rows; `evaluated` says of which pairs, comparisons and sides an evaluation is, and has
an empty text where it is of none. `working` has the workers of each job that runs, and `leases` what each of them is
at.
"""

import duckdb

from probing.errors import StoreError

_GRAPH = (
    """format('{{"layers": {}, "parallel": {}, "granularity": "{}", "whole": []}}', layers, parallel, granularity)"""
)
"""What `ResidualGraph.as_text` says of a graph that was kept as three columns."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE rollouts (
            rollout_key VARCHAR PRIMARY KEY, model VARCHAR NOT NULL, identity VARCHAR NOT NULL,
            question_set VARCHAR NOT NULL, settings JSON NOT NULL, questions INTEGER NOT NULL,
            provenance JSON, seconds DOUBLE, created TIMESTAMP NOT NULL, finished TIMESTAMP)""",
        """CREATE TABLE answers (
            rollout_key VARCHAR NOT NULL, position INTEGER NOT NULL, question_id VARCHAR NOT NULL,
            question VARCHAR NOT NULL, reference VARCHAR NOT NULL, prompt VARCHAR NOT NULL,
            prompt_tokens INTEGER[] NOT NULL, answer_tokens INTEGER[] NOT NULL, answer VARCHAR NOT NULL,
            correct BOOLEAN NOT NULL, PRIMARY KEY (rollout_key, question_id))""",
        """CREATE TABLE comparisons (
            comparison_key VARCHAR PRIMARY KEY, pair VARCHAR NOT NULL, question_set VARCHAR NOT NULL,
            cohort VARCHAR NOT NULL, alpha DOUBLE NOT NULL, base_rollout VARCHAR NOT NULL,
            tuned_rollout VARCHAR NOT NULL, settings JSON NOT NULL, cut INTEGER, mean_length DOUBLE,
            counts JSON, warning VARCHAR, failure VARCHAR, created TIMESTAMP NOT NULL)""",
        """CREATE TABLE outcomes (
            comparison_key VARCHAR NOT NULL, question_id VARCHAR NOT NULL, cohort VARCHAR NOT NULL, reason VARCHAR,
            PRIMARY KEY (comparison_key, question_id))""",
        """CREATE TABLE runs (
            run_key VARCHAR PRIMARY KEY, comparison_key VARCHAR NOT NULL, side VARCHAR NOT NULL,
            model VARCHAR NOT NULL, identity VARCHAR NOT NULL, layers INTEGER NOT NULL, parallel BOOLEAN NOT NULL,
            samples INTEGER NOT NULL, batch_size INTEGER NOT NULL, settings JSON NOT NULL, provenance JSON,
            seconds DOUBLE, created TIMESTAMP NOT NULL, finished TIMESTAMP)""",
        """CREATE TABLE samples (
            run_key VARCHAR NOT NULL, question_id VARCHAR NOT NULL, loss FLOAT NOT NULL, scores FLOAT[] NOT NULL,
            PRIMARY KEY (run_key, question_id))""",
        """CREATE TABLE edge_moments (
            run_key VARCHAR NOT NULL, edge INTEGER NOT NULL, n INTEGER NOT NULL, mean DOUBLE NOT NULL,
            variance DOUBLE NOT NULL, mean_abs DOUBLE NOT NULL, variance_abs DOUBLE NOT NULL,
            PRIMARY KEY (run_key, edge))""",
        """CREATE TABLE edges (
            layers INTEGER NOT NULL, parallel BOOLEAN NOT NULL, edge INTEGER NOT NULL, name VARCHAR NOT NULL,
            writer VARCHAR NOT NULL, reader VARCHAR NOT NULL, PRIMARY KEY (layers, parallel, edge))""",
        "CREATE SEQUENCE job_numbers",
        """CREATE TABLE jobs (
            job_id INTEGER PRIMARY KEY DEFAULT nextval('job_numbers'), spec JSON NOT NULL, status VARCHAR NOT NULL,
            stage VARCHAR NOT NULL DEFAULT '', done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
            message VARCHAR NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0, worker VARCHAR,
            created TIMESTAMP NOT NULL, started TIMESTAMP, finished TIMESTAMP)""",
        """CREATE VIEW scores_long AS
            SELECT s.run_key, s.question_id, e.name AS edge, e.writer, e.reader, s.scores[e.edge + 1] AS score
            FROM samples s JOIN runs r USING (run_key)
            JOIN edges e ON e.layers = r.layers AND e.parallel = r.parallel""",
    ),
    (
        "ALTER TABLE answers ADD COLUMN prompt_pieces VARCHAR[]",
        "ALTER TABLE answers ADD COLUMN answer_pieces VARCHAR[]",
        """CREATE TABLE metric_summaries (
            comparison_key VARCHAR NOT NULL, side VARCHAR NOT NULL, metric VARCHAR NOT NULL, base DOUBLE, tuned DOUBLE,
            difference DOUBLE, relative DOUBLE, ci_low DOUBLE, ci_high DOUBLE,
            PRIMARY KEY (comparison_key, side, metric))""",
        """CREATE TABLE question_summaries (
            comparison_key VARCHAR NOT NULL, side VARCHAR NOT NULL, question_id VARCHAR NOT NULL,
            metric VARCHAR NOT NULL, base DOUBLE, tuned DOUBLE,
            PRIMARY KEY (comparison_key, side, metric, question_id))""",
        """CREATE TABLE edge_summaries (
            comparison_key VARCHAR NOT NULL, side VARCHAR NOT NULL, edge INTEGER NOT NULL,
            base_strength DOUBLE NOT NULL, tuned_strength DOUBLE NOT NULL,
            base_effect DOUBLE NOT NULL, tuned_effect DOUBLE NOT NULL,
            ci_low DOUBLE NOT NULL, ci_high DOUBLE NOT NULL, effect_ci_low DOUBLE NOT NULL,
            effect_ci_high DOUBLE NOT NULL, PRIMARY KEY (comparison_key, side, edge))""",
        """CREATE TABLE positions (
            run_key VARCHAR NOT NULL, question_id VARCHAR NOT NULL, positions INTEGER NOT NULL, scores FLOAT[] NOT NULL,
            PRIMARY KEY (run_key, question_id))""",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN stage_started TIMESTAMP",
        "ALTER TABLE jobs ADD COLUMN died_at VARCHAR",
        "ALTER TABLE jobs ADD COLUMN requested_by VARCHAR",
    ),
    (
        "ALTER TABLE runs ADD COLUMN granularity VARCHAR DEFAULT 'projections'",
        "DROP VIEW scores_long",
        """CREATE TABLE edge_names (
            layers INTEGER NOT NULL, parallel BOOLEAN NOT NULL, granularity VARCHAR NOT NULL, edge INTEGER NOT NULL,
            name VARCHAR NOT NULL, writer VARCHAR NOT NULL, reader VARCHAR NOT NULL,
            PRIMARY KEY (layers, parallel, granularity, edge))""",
        "INSERT INTO edge_names SELECT layers, parallel, 'projections', edge, name, writer, reader FROM edges",
        "DROP TABLE edges",
        """CREATE VIEW scores_long AS
            SELECT s.run_key, s.question_id, e.name AS edge, e.writer, e.reader, s.scores[e.edge + 1] AS score
            FROM samples s JOIN runs r USING (run_key)
            JOIN edge_names e ON e.layers = r.layers AND e.parallel = r.parallel AND e.granularity = r.granularity""",
    ),
    (
        "ALTER TABLE runs ADD COLUMN graph VARCHAR",
        f"UPDATE runs SET graph = {_GRAPH}",
        "DROP VIEW scores_long",
        "ALTER TABLE edge_names RENAME TO named",
        """CREATE TABLE edge_names (
            graph VARCHAR NOT NULL, edge INTEGER NOT NULL, name VARCHAR NOT NULL, writer VARCHAR NOT NULL,
            reader VARCHAR NOT NULL, PRIMARY KEY (graph, edge))""",
        f"INSERT INTO edge_names SELECT {_GRAPH}, edge, name, writer, reader FROM named",
        "DROP TABLE named",
        *(f"ALTER TABLE runs DROP COLUMN {column}" for column in ("layers", "parallel", "granularity")),
        """CREATE VIEW scores_long AS
            SELECT s.run_key, s.question_id, e.name AS edge, e.writer, e.reader, s.scores[e.edge + 1] AS score
            FROM samples s JOIN runs r USING (run_key) JOIN edge_names e USING (graph)""",
        *(
            f"""UPDATE comparisons
            SET settings = replace(settings, '"granularity": "{words}"', '"granularity": "{name}"')"""
            for words, name in (("blocks, q/k/v apart", "projections"), ("blocks, attention as one", "blocks"))
        ),
        "ALTER TABLE metric_summaries ADD COLUMN relative_low DOUBLE",
        "ALTER TABLE metric_summaries ADD COLUMN relative_high DOUBLE",
        "ALTER TABLE metric_summaries ADD COLUMN version INTEGER",
    ),
    (
        "DROP VIEW scores_long",
        "DROP TABLE edge_moments",
        """CREATE TABLE comparison_runs (
            comparison_key VARCHAR NOT NULL, side VARCHAR NOT NULL, run_key VARCHAR NOT NULL,
            PRIMARY KEY (comparison_key, side))""",
        "INSERT INTO comparison_runs SELECT comparison_key, side, run_key FROM runs",
        *(f"ALTER TABLE runs DROP COLUMN {column}" for column in ("comparison_key", "side")),
        """CREATE TABLE graphs (
            graph VARCHAR PRIMARY KEY, writers VARCHAR[] NOT NULL, readers VARCHAR[] NOT NULL,
            writers_before INTEGER[] NOT NULL)""",
        """INSERT INTO graphs
            SELECT graph, writers, readers, writers_before FROM (
                SELECT graph, list(writer ORDER BY first) AS writers
                FROM (SELECT graph, writer, min(edge) AS first FROM edge_names GROUP BY ALL) GROUP BY graph)
            JOIN (
                SELECT graph, list(reader ORDER BY first) AS readers, list(before ORDER BY first) AS writers_before
                FROM (SELECT graph, reader, min(edge) AS first, count(*) AS before FROM edge_names GROUP BY ALL)
                GROUP BY graph) USING (graph)""",
        "DROP TABLE edge_names",
        """CREATE VIEW edges AS
            SELECT graph, (row_number() OVER (PARTITION BY graph ORDER BY w, r) - 1)::INTEGER AS edge,
                writer || '->' || reader AS name, writer, reader
            FROM (SELECT graph, unnest(writers) AS writer, unnest(range(len(writers))) AS w FROM graphs)
            JOIN (SELECT graph, unnest(readers) AS reader, unnest(range(len(readers))) AS r,
                      unnest(writers_before) AS before FROM graphs) USING (graph)
            WHERE w < before""",
        "ALTER TABLE samples RENAME TO arrays",
        "CREATE SEQUENCE sample_numbers",
        """CREATE TABLE samples (
            run_key VARCHAR NOT NULL, question_id VARCHAR NOT NULL, loss FLOAT NOT NULL,
            sample INTEGER NOT NULL DEFAULT nextval('sample_numbers'), PRIMARY KEY (run_key, question_id))""",
        "INSERT INTO samples (run_key, question_id, loss) SELECT run_key, question_id, loss FROM arrays",
        "CREATE TABLE scores (sample INTEGER NOT NULL, edge INTEGER NOT NULL, score FLOAT NOT NULL)",
        """INSERT INTO scores SELECT sample, unnest(range(len(scores))), unnest(scores)
            FROM arrays JOIN samples USING (run_key, question_id)""",
        "DROP TABLE arrays",
        """CREATE VIEW scores_long AS
            SELECT run_key, question_id, name AS edge, writer, reader, score
            FROM samples JOIN runs USING (run_key) JOIN scores USING (sample) JOIN edges USING (graph, edge)""",
        "ALTER TABLE edge_summaries RENAME TO kept",
        "CREATE SEQUENCE summary_numbers",
        """CREATE TABLE edge_summaries (
            comparison_key VARCHAR NOT NULL, side VARCHAR NOT NULL,
            summary INTEGER NOT NULL DEFAULT nextval('summary_numbers'), PRIMARY KEY (comparison_key, side))""",
        "INSERT INTO edge_summaries (comparison_key, side) SELECT DISTINCT comparison_key, side FROM kept",
        """CREATE TABLE edge_values (
            summary INTEGER NOT NULL, edge INTEGER NOT NULL, base_strength DOUBLE NOT NULL,
            tuned_strength DOUBLE NOT NULL, base_effect DOUBLE NOT NULL, tuned_effect DOUBLE NOT NULL,
            ci_low DOUBLE NOT NULL, ci_high DOUBLE NOT NULL, effect_ci_low DOUBLE NOT NULL,
            effect_ci_high DOUBLE NOT NULL)""",
        """INSERT INTO edge_values BY NAME SELECT * EXCLUDE (comparison_key, side)
            FROM kept JOIN edge_summaries USING (comparison_key, side) ORDER BY summary, edge""",
        "DROP TABLE kept",
        "UPDATE jobs SET status = 'queued' WHERE status = 'running'",
    ),
    (
        """CREATE TABLE evaluations (
            evaluation_key VARCHAR PRIMARY KEY, kind VARCHAR NOT NULL, settings JSON NOT NULL, ids VARCHAR[] NOT NULL,
            units VARCHAR[] NOT NULL, provenance JSON, seconds DOUBLE, created TIMESTAMP NOT NULL,
            finished TIMESTAMP)""",
        """CREATE TABLE evaluated (
            evaluation_key VARCHAR NOT NULL, pair VARCHAR NOT NULL, question_set VARCHAR NOT NULL,
            comparison_key VARCHAR NOT NULL, side VARCHAR NOT NULL,
            PRIMARY KEY (evaluation_key, pair, question_set, comparison_key, side))""",
        """CREATE TABLE measurements (
            evaluation_key VARCHAR NOT NULL, unit VARCHAR NOT NULL, measure VARCHAR NOT NULL, numbers FLOAT[] NOT NULL,
            PRIMARY KEY (evaluation_key, unit, measure))""",
        """CREATE VIEW measurements_long AS
            SELECT evaluation_key, kind, unit, measure, unnest(ids) AS question_id, unnest(numbers) AS number
            FROM measurements JOIN evaluations USING (evaluation_key)""",
    ),
    (
        "ALTER TABLE jobs ADD COLUMN urgent BOOLEAN DEFAULT false",
        *(f"ALTER TABLE edge_values ADD COLUMN {name} DOUBLE" for name in ("p", "q", "effect_p", "effect_q")),
    ),
    (
        "ALTER TABLE comparisons ALTER COLUMN alpha DROP NOT NULL",
        "ALTER TABLE comparisons ADD COLUMN tokens INTEGER",
    ),
    (
        "ALTER TABLE rollouts ADD COLUMN batch_size INTEGER",
        "ALTER TABLE jobs ADD COLUMN numerics JSON",
        "CREATE TABLE working (worker VARCHAR NOT NULL, job_id INTEGER NOT NULL)",
        "INSERT INTO working SELECT worker, job_id FROM jobs WHERE status = 'running' AND worker IS NOT NULL",
        "ALTER TABLE jobs DROP COLUMN worker",
        "CREATE TABLE leases (item VARCHAR NOT NULL, worker VARCHAR NOT NULL)",
    ),
)
"""Statements that lead from each version to the next; an empty file has version 0."""

VERSION = len(MIGRATIONS)


def migrate(connection: duckdb.DuckDBPyConnection, read_only: bool = False) -> None:
    """Bring the open store to the present version, each step in one transaction.

    Raises:
        StoreError: the store is of a later version, or of an earlier one and only read, or the file is a DuckDB
            database of something else.
    """
    tables = {row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    version = 0
    if "store_version" in tables:
        # All rows are fetched: a result that is left half read keeps its transaction, and with it every old row, alive.
        ((found,),) = connection.execute("SELECT max(version) FROM store_version").fetchall()
        version = found or 0
    elif tables:
        raise StoreError(
            "This DuckDB file was made by something else: it has tables but no store version.",
            "Name another file with --store or PROBING_STORE.",
        )
    if version > VERSION:
        raise StoreError(
            f"This store has version {version}; this program knows versions up to {VERSION}.",
            "Update the program, or name another file with --store or PROBING_STORE.",
        )
    if read_only and version < VERSION:
        raise StoreError(
            f"This store has version {version}, and a store that is only read must have version {VERSION}.",
            "Open it once to write, as 'python -m probing runs --store FILE' does.",
        )
    for step in range(version, VERSION):
        connection.execute("BEGIN")
        if step == 0:
            connection.execute("CREATE TABLE IF NOT EXISTS store_version (version INTEGER PRIMARY KEY)")
        for statement in MIGRATIONS[step]:
            connection.execute(statement)
        connection.execute("INSERT INTO store_version VALUES (?)", [step + 1])
        connection.execute("COMMIT")
