#!/usr/bin/env bash
# Regenerates rows.tsv: the tuple PostgreSQL 15 stores for each line of rows.txt, as pageinspect shows it.
set -euo pipefail
cd "$(dirname "$0")"
psql=$1
$psql -qAt -c 'create extension if not exists pageinspect'
while IFS= read -r line; do
  IFS='|' read -ra part <<<"$line"
  IFS=',' read -ra types <<<"$(sed 's/(\([0-9]*\),\([0-9]*\))/(\1;\2)/' <<<"${part[0]}")"
  columns='' values=''
  for i in "${!types[@]}"; do
    ty=${types[$i]//;/,}
    value=${part[$((i + 1))]}
    columns+="${columns:+,}c$i $ty"
    case $value in
      null) values+="${values:+,}null" ;;
      @*) values+="${values:+,}repeat('z',${value#@})" ;;
      *) values+="${values:+,}'$value'" ;;
    esac
  done
  row=$($psql -qAt -v ON_ERROR_STOP=1 -F ' ' -c "set timezone='UTC'" -c "drop table if exists towline_row" -c "create table towline_row ($columns)" -c "insert into towline_row values ($values)" \
    -c "select t_infomask & 3, coalesce(t_bits,'-'), encode(t_data,'hex') from heap_page_items(get_raw_page('towline_row',0))")
  printf '%s\t%s\n' "$line" "$row"
done <rows.txt >rows.tsv
