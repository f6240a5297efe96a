#!/usr/bin/env bash
# Regenerates expectations.tsv from expressions.txt with a running PostgreSQL 15: `generate.sh "psql -h … -U postgres"`.
set -euo pipefail
cd "$(dirname "$0")"
psql=$1
$psql -qAt -v ON_ERROR_STOP=1 <<'SQL'
create or replace function towline_expression(e text) returns text language plpgsql as $$
declare r text; h text;
begin
  execute 'select pg_typeof(' || e || ') || ''|'' || case when (' || e || ') is null then ''NULL'' else concat(' || e || ') end' into r;
  return r;
exception when others then
  get stacked diagnostics h = pg_exception_hint;
  return '!' || sqlstate || ' ' || sqlerrm || case when h <> '' then ' HINT ' || h else '' end;
end $$;
create unlogged table if not exists towline_lines (n serial, line text);
truncate towline_lines restart identity;
SQL
$psql -qAt -c "copy towline_lines(line) from stdin with (format csv, delimiter E'\\x01', quote E'\\x02')" <expressions.txt
$psql -qAt -v ON_ERROR_STOP=1 -c "set timezone='America/New_York'" \
  -c "select line || E'\t' || towline_expression(line) from towline_lines order by n" >expectations.tsv
