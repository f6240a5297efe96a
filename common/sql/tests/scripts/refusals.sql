# What was once accepted and answered, where PostgreSQL refuses, and neighbours that must go on working.
create table refusals (x int, y int, s text)
----
CREATE TABLE

insert into refusals values (1, 2, 'a'), (1, 1, 'b'), (2, 5, 'c'), (2, 4, 'd'), (null, 3, 'e')
----
INSERT 0 5

select distinct on (x) x, y from refusals order by y
----
ERROR 42P10: SELECT DISTINCT ON expressions must match initial ORDER BY expressions (at 21)

select distinct on (x) x, y from refusals order by y, x
----
ERROR 42P10: SELECT DISTINCT ON expressions must match initial ORDER BY expressions (at 21)

select distinct on (x, y) x, y from refusals order by x, s
----
ERROR 42P10: SELECT DISTINCT ON expressions must match initial ORDER BY expressions (at 24)

select distinct on (x, y) x, y, s from refusals order by y, x, s
----
1|1|b
1|2|a
NULL|3|e
2|4|d
2|5|c
SELECT 5

select distinct on (x) x, y from refusals order by x, y
----
1|1
2|4
NULL|3
SELECT 3

select distinct on (x) x, y from refusals order by x desc nulls last, y desc
----
2|5
1|2
NULL|3
SELECT 3

select distinct on (x + 1) x + 1, s from refusals order by x + 1, s desc
----
2|b
3|d
NULL|e
SELECT 3

select distinct on (1) x, y from refusals order by 2
----
ERROR 42P10: SELECT DISTINCT ON expressions must match initial ORDER BY expressions (at 21)

select distinct on (1) x, y from refusals order by 1, 2
----
1|1
2|4
NULL|3
SELECT 3

select '{1,{2}}'::int[]
----
ERROR 22P02: malformed array literal: "{1,{2}}" (at 8)

select '{{1},2}'::int[]
----
ERROR 22P02: malformed array literal: "{{1},2}" (at 8)

select '{{1,2},{3,4}}'::int[]
----
{{1,2},{3,4}}
SELECT 1

select '{{1},{2,3}}'::int[]
----
ERROR 22P02: malformed array literal: "{{1},{2,3}}" (at 8)

select '{}'::int[], '{ 1 , 2 }'::int[], '{null,"null"}'::text[]
----
{}|{1,2}|{NULL,"null"}
SELECT 1

select decode('====', 'base64')
----
ERROR 22023: unexpected "=" while decoding base64 sequence

select decode('A===', 'base64')
----
ERROR 22023: unexpected "=" while decoding base64 sequence

select decode('AA=', 'base64')
----
ERROR 22023: invalid base64 end sequence

select decode('AA==', 'base64'), decode('AAA=', 'base64'), decode('AA=A', 'base64'), decode('AA==AAAA', 'base64')
----
\x00|\x0000|\x00|\x0000
SELECT 1

select decode(' A A = = ', 'base64')
----
\x00
SELECT 1

with w(a, b) as (select 1) select 2
----
ERROR 42P10: WITH query "w" has 1 columns available but 2 columns specified (at 6)

with w(a, b) as (select 1) select * from w
----
ERROR 42P10: WITH query "w" has 1 columns available but 2 columns specified (at 6)

with w(a) as (select 1, 2) select * from w
----
1|2
SELECT 1

# VACUUM counts the TOAST table as well.
create table vacuumed (t text)
----
CREATE TABLE

insert into vacuumed select (select string_agg(md5((i * 1000 + j)::text), '') from generate_series(1, 200) j) from generate_series(1, 5) i
----
INSERT 0 5

vacuum vacuumed
----
VACUUM

select reltuples > 0, relpages > 0 from pg_class where oid = (select reltoastrelid from pg_class where relname = 'vacuumed')
----
t|t
SELECT 1


# Escapes of a string: a code that is none is a fault of the syntax, not of the encoding, and two surrogates are one character.
select E'a\u0000'
----
ERROR 42601: invalid Unicode escape value at or near "\u0000" (at 11)

select E'\U00110000'
----
ERROR 42601: invalid Unicode escape value at or near "\U00110000" (at 10)

select E'\udc00'
----
ERROR 42601: invalid Unicode surrogate pair at or near "\udc00" (at 10)

select E'\ud800x'
----
ERROR 42601: invalid Unicode surrogate pair at or near "x" (at 16)

select E'\ud800\u0041'
----
ERROR 42601: invalid Unicode surrogate pair at or near "\u0041" (at 16)

select E'\ud83d\ude00' = chr(128512), E'\uD83D\U0000DE00' = chr(128512)
----
t|t
SELECT 1

select E'a\x00'
----
ERROR 22021: invalid byte sequence for encoding "UTF8": 0x00

# COPY: an option that was given twice was taken from its last place.
create table copied (a int, b text)
----
CREATE TABLE

copy copied from stdin (header true, header false)
----
ERROR 42601: conflicting or redundant options (at 38)

copy copied to stdout (format csv, format text)
----
ERROR 42601: conflicting or redundant options (at 36)

copy copied to stdout (format csv, force_quote (a), force_quote *)
----
ERROR 42601: conflicting or redundant options (at 53)

copy copied from stdin (freeze, freeze)
----
ERROR 42601: conflicting or redundant options (at 33)

copy copied from stdin csv header header
----
ERROR 42601: conflicting or redundant options (at 35)

copy copied to stdout csv delimiter ',' csv
----
ERROR 42601: conflicting or redundant options (at 41)

copy copied from stdin with null 'x' null 'y'
----
ERROR 42601: conflicting or redundant options (at 38)

drop table copied
----
DROP TABLE

# A position of the log has its own word for what is beyond it.
select '0/0'::pg_lsn - 1::numeric
----
ERROR 22023: pg_lsn out of range

select 'FFFFFFFF/FFFFFFFF'::pg_lsn + 1::numeric
----
ERROR 22023: pg_lsn out of range

select '0/0'::pg_lsn - 1e60::numeric
----
ERROR 22023: pg_lsn out of range

select '0/0'::pg_lsn + 'infinity'::numeric
----
ERROR 0A000: cannot convert infinity to pg_lsn

select '0/0'::pg_lsn + 0.5, '0/0'::pg_lsn + 1.5
----
0/1|0/2
SELECT 1
