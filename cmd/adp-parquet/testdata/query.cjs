// Runs the SQL statements of standard input, an array of JSON, in DuckDB and prints their
// rows, an array of arrays for each. DUCKDB_DIR is where scripts/parquet has installed it.
const path = require('path');
const { DuckDBInstance } = require(path.join(process.env.DUCKDB_DIR, 'node_modules/@duckdb/node-api'));
const statements = JSON.parse(require('fs').readFileSync(0, 'utf8'));

(async () => {
  const connection = await (await DuckDBInstance.create(':memory:')).connect();
  const all = [];
  for (const sql of statements) {
    all.push((await connection.runAndReadAll(sql)).getRowsJson());
  }
  process.stdout.write(JSON.stringify(all), () => process.exit(0));
})().catch((err) => {
  console.error(err);
  process.exit(1);
});
