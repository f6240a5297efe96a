#!/usr/bin/env bash
# Regenerates binary.tsv: what PostgreSQL 15's send functions make of the values in binary.txt.
set -euo pipefail
cd "$(dirname "$0")"
psql=$1
while IFS='|' read -r type value; do
  send=$($psql -qAt -c "select typsend from pg_type where oid = '$type'::regtype")
  hex=$($psql -qAt -c "set timezone='UTC'" -c "select encode($send('$value'::$type), 'hex')")
  printf '%s|%s\t%s\n' "$type" "$value" "$hex"
done <binary.txt >binary.tsv
