#!/usr/bin/env bash
# Regenerates expectations.tsv from inputs.txt with a running PostgreSQL 15: `generate.sh "psql -h … -U postgres"`.
set -euo pipefail
cd "$(dirname "$0")"
psql=$1
$psql -qAt -v ON_ERROR_STOP=1 <<'SQL'
create or replace function towline_oracle(ty text, v text) returns text language plpgsql as $$
declare r text; h text;
begin
  execute format('select concat(%L::%s)', v, ty) into r;
  return r;
exception when others then
  get stacked diagnostics h = pg_exception_hint;
  return '!' || sqlstate || ' ' || sqlerrm || case when h <> '' then ' HINT ' || h else '' end;
end $$;
create or replace function towline_eval(e text) returns text language plpgsql as $$
declare r text;
begin
  execute 'select concat(' || e || ')' into r;
  return r;
exception when others then return '!' || sqlstate || ' ' || sqlerrm;
end $$;
create unlogged table if not exists towline_lines (n serial, line text);
SQL
run() {
  $psql -qAt -c 'truncate towline_lines restart identity'
  $psql -qAt -c "copy towline_lines(line) from stdin with (format csv, delimiter E'\\x01', quote E'\\x02')" <"$1"
  $psql -qAt -v ON_ERROR_STOP=1 -c "set timezone='America/New_York'" -c "$2"
}
run inputs.txt "select line || E'\t' || towline_oracle(split_part(line, '|', 1), substr(line, strpos(line, '|') + 1)) from towline_lines order by n" >expectations.tsv
run numeric.txt "select line || E'\t' || towline_eval(line) from towline_lines order by n" >numeric.tsv
