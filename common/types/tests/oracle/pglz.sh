#!/usr/bin/env bash
# Regenerates pglz.tsv with a running PostgreSQL 15: `pglz.sh "psql -h … -U postgres"`. Each line has a unit, a count, and in
# hex the compressed value, header included, of the unit repeated (for the unit `#`, of so many numbered lines).
set -euo pipefail
cd "$(dirname "$0")"
psql=$1
$psql -qAt -c 'set client_min_messages = warning; create extension if not exists pageinspect'
while read -r unit count; do
  value="repeat('$unit', $count)"
  [[ $unit == '#' ]] && value="(select string_agg('line ' || i || ' of the text', ' ' order by i) from generate_series(1, $count) i)"
  row=$($psql -qAt -v ON_ERROR_STOP=1 -c "set client_min_messages = warning" -c "drop table if exists towline_row" -c "create table towline_row (c text)" -c "alter table towline_row alter c set storage main" \
    -c "insert into towline_row select $value" -c "select encode(t_data, 'hex') from heap_page_items(get_raw_page('towline_row', 0))")
  printf '%s\t%s\t%s\n' "$unit" "$count" "$row"
done >pglz.tsv <<'LINES'
a 2100
ab 1500
abc 2700
the_quick_brown_fox_jumps_over_the_lazy_dog 60
lorem_ipsum_dolor_sit_amet 900
abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 40
é 3000
x 200000
# 150
# 500
LINES
