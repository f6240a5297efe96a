# Answers that a random search against PostgreSQL found wrong once: types of results, error positions, functions.
create table answers (a int, c char(5), v varchar(10))
----
CREATE TABLE

insert into answers values (1, 'ab', 'x'), (2, 'b', 'yy')
----
INSERT 0 2

# Of several errors the one in the select list is reported.
select nosuch, nosuch2 from answers where other = 1
----
ERROR 42703: column "nosuch" does not exist (at 8)

select a::date from answers where a::interval is null
----
ERROR 42846: cannot cast type integer to date (at 9)

# An error of types that do not meet points at the one that does not fit.
select case when true then 1 when false then 'x'::text else 2 end from answers
----
ERROR 42804: CASE types integer and text cannot be matched (at 46)

select case when a = 1 then 1 else date '2001-02-03' end from answers
----
ERROR 42804: CASE types date and integer cannot be matched (at 29)

select coalesce(1, 2, '2001-02-03'::date)
----
ERROR 42804: COALESCE types integer and date cannot be matched (at 23)

select greatest('a'::text, interval '1 day')
----
ERROR 42804: GREATEST types text and interval cannot be matched (at 37)

select array[1, 'x'::text]
----
ERROR 42804: ARRAY types integer and text cannot be matched (at 17)

values (1), (date '2001-02-03')
----
ERROR 42804: VALUES types integer and date cannot be matched (at 19)

select case a when 1 then 'x' when date '2001-02-03' then 'y' end from answers
----
ERROR 42883: operator does not exist: integer = date (at 31)

select 1 union select timestamp '2001-02-03 04:05:06'
----
ERROR 42804: UNION types integer and timestamp without time zone cannot be matched (at 33)

insert into answers (a) values (timestamp '2001-02-03 04:05:06')
----
ERROR 42804: column "a" is of type integer but expression is of type timestamp without time zone (at 43)

# A function written with SQL's words is reported by its full name, one that is called as it was called.
select substring(interval '1 day' from 1 for 2)
----
ERROR 42883: function pg_catalog.substring(interval, integer, integer) does not exist (at 8)

select substring(interval '1 day', 1, 2)
----
ERROR 42883: function substring(interval, integer, integer) does not exist (at 8)

select position(1 in 'a'::text)
----
ERROR 42883: function pg_catalog.position(text, integer) does not exist (at 8)

select trim(both 'x' from true)
----
ERROR 42883: function pg_catalog.btrim(boolean, unknown) does not exist (at 8)

select pg_catalog.nosuch(1)
----
ERROR 42883: function pg_catalog.nosuch(integer) does not exist (at 8)

select pg_typeof(max(c)), max(c), pg_typeof(max(v)) from answers
----
character|b    |text
SELECT 1

select pg_typeof(nullif(v, 'x')), nullif(v, 'x') from answers order by a
----
text|NULL
text|yy
SELECT 2

select to_char(timestamp 'infinity', 'YYYY'), to_char(timestamptz '-infinity', 'YYYY')
----
NULL|NULL
SELECT 1

select date_bin('1 day', timestamp '2001-02-03', timestamp 'infinity')
----
ERROR 22008: origin out of range

select date_bin('1 day', timestamp 'infinity', timestamp '2001-02-03')
----
infinity
SELECT 1

select set_byte('\x001234'::bytea, 1, 255), set_byte('\x00'::bytea, 0, 256)
----
\x00ff34|\x00
SELECT 1

select set_byte('\x00'::bytea, 1, 1)
----
ERROR 2202E: index 1 out of valid range, 0..0

select get_bit('\x0180'::bytea, 0), get_bit('\x0180'::bytea, 15), set_bit('\x00'::bytea, 3, 1)
----
1|1|\x08
SELECT 1

select get_bit('\x01'::bytea, 8)
----
ERROR 2202E: index 8 out of valid range, 0..7

select set_bit('\x01'::bytea, 0, 2)
----
ERROR 22023: new bit must be 0 or 1

select sha224('abc'::bytea), sha256(''::bytea)
----
\x23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7|\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
SELECT 1

select sha384('abc'::bytea), sha512('abc'::bytea)
----
\xcb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7|\xddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f
SELECT 1

# Dates and times read by a template.
select to_timestamp('15 "text" 2001', 'DD "text" YYYY')
----
ERROR 22007: invalid value "t" 2" for "YYYY"

select to_date('2001-02-03', 'YYYY-MM-DD'), to_date('20010203', 'YYYYMMDD'), to_date('3 Feb 2001', 'DD Mon YYYY'), to_date('March 5, 99', 'Month DD, YY')
----
2001-02-03|2001-02-03|2001-02-03|1999-03-05
SELECT 1

set timezone = 'UTC'
----
SET

select to_timestamp('2001-02-03 16:05:06.789', 'YYYY-MM-DD HH24:MI:SS.MS'), to_timestamp('2001-02-03 04:05:06 PM', 'YYYY-MM-DD HH12:MI:SS am'), to_timestamp('05121445482000', 'MMDDHH24MISSYYYY')
----
2001-02-03 16:05:06.789+00|2001-02-03 16:05:06+00|2000-05-12 14:45:48+00
SELECT 1

select to_timestamp('2001/02/03T04:05:06.5', 'YYYY-MM-DD"T"HH24:MI:SS.US'), to_timestamp('15 on 2001', 'DD "on" YYYY'), to_timestamp('  2001   12', 'YYYY MM'), to_timestamp('20000-1131', 'YYYY-MMDD')
----
ERROR 22008: date/time field value out of range: "20000-1131"

select to_date('2001 034', 'YYYY DDD'), to_date('2451944', 'J'), to_date('44-03-15 BC', 'YYYY-MM-DD BC'), to_date('02-03', 'MM-DD'), to_date('3rd 2 2001', 'DDth MM YYYY'), to_date('', 'YYYY')
----
2001-02-03|2001-02-03|0044-03-15 BC|0001-02-03 BC|2001-02-03|0001-01-01 BC
SELECT 1

select to_date('2001-13-03', 'YYYY-MM-DD')
----
ERROR 22008: date/time field value out of range: "2001-13-03"

select to_date('2001-02-30', 'YYYY-MM-DD')
----
ERROR 22008: date/time field value out of range: "2001-02-30"

select to_date('200', 'YYYYMM')
----
ERROR 22007: source string too short for "YYYY" formatting field

select to_date('20ab', 'YYYY')
----
0020-01-01
SELECT 1

select to_date('2x01', 'YYMM')
----
ERROR 22007: invalid value "2x" for "YY"

select to_date('Fib 2001', 'Mon YYYY')
----
ERROR 22007: invalid value "Fib" for "Mon"

select to_timestamp('13 PM', 'HH12 PM')
----
ERROR 22007: hour "13" is invalid for the 12-hour clock

select to_timestamp('25:00', 'HH24:MI')
----
ERROR 22008: date/time field value out of range: "25:00"

select to_date('2001 2002', 'YYYY YYYY')
----
ERROR 22007: conflicting values for "YYYY" field in formatting string

select to_date('99999999999', 'YYYY')
----
ERROR 22008: value for "YYYY" in source string is out of range

select to_timestamp('UTC', 'TZ')
----
ERROR 0A000: formatting field "TZ" is only supported in to_char

select to_char(interval '1 year 2 months 3 days 25:06:07.089', 'YYYY MM DD HH24:MI:SS.MS US HH12 AM'), to_char(interval '-1 day -02:03:04', 'DD HH24:MI:SS'), to_char(interval '100 hours', 'FMHH24 "h"')
----
0001 02 03 25:06:07.089 089000 01 AM|-1 -02:-03:-04|100 h
SELECT 1

select to_char(interval '1 day', 'Day')
----
ERROR 22007: invalid format specification for an interval value

# What is borrowed for days is the earlier month's length, whichever way round.
select age(timestamp '2001-01-31', timestamp '2001-03-01'), age(timestamp '2001-03-01', timestamp '2001-01-31')
----
-1 mons -1 days|1 mon 1 day
SELECT 1

select age(timestamp '1999-12-31 23:59:59.999999', timestamp '2020-06-15 12:00:00.5'), age(timestamp '2000-02-29', timestamp '2001-03-01'), age(timestamptz '2024-03-31 00:00+00', timestamptz '2024-02-29 00:00+00')
----
-20 years -5 mons -14 days -12:00:00.500001|-1 years -1 days|1 mon 2 days
SELECT 1

select to_char(timestamp '0001-01-01 BC', 'IYYY-IW-ID'), to_char(timestamp '2001-08-03', 'RM|rm|FMRM|'), to_char(timestamp '2001-05-03', 'RM|')
----
0002-52-6|VIII|viii|VIII||V   |
SELECT 1

# A modifier that only one branch has is no modifier of the result.
create table shapes as select case a when 1 then c end as bare, case when a = 1 then c else 'x'::char(5) end as kept, c from answers
----
SELECT 2

select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'shapes'::regclass and attnum > 0 order by attnum
----
bare|bpchar
kept|character(5)
c|character(5)
SELECT 3

drop table shapes
----
DROP TABLE

copy (select a, v from answers order by a) to stdout (format csv, header, force_quote *)
----
copy: a,v
copy: "1","x"
copy: "2","yy"
COPY 2

copy answers from stdin (format xml)
----
ERROR 22023: COPY format "xml" not recognized (at 26)

# A year far beyond the calendar beside a day of the year is no reason to end the connection.
select time '20000000.200 04:05:06 Europe/Berlin'
----
04:05:06
SELECT 1

select date '20000000.200'
----
ERROR 22008: date out of range: "20000000.200" (at 13)

# What connection pools send between users.
close all
----
CLOSE CURSOR ALL

unlisten *
----
UNLISTEN

unlisten news
----
UNLISTEN

drop table answers
----
DROP TABLE

# The other sign of a number is that of the same constant.
select -(-2147483648), pg_typeof(-(-2147483648)), - - 5, -(-1.5), -(-9223372036854775808)
----
2147483648|bigint|5|1.5|9223372036854775808
SELECT 1

# Dates beyond the last timestamp.
select extract(year from date '5874897-12-31'), extract(dow from date '5874897-12-31'), extract(doy from date '300000-03-01'), extract(century from date '300000-03-01'), extract(julian from date '5874897-12-31')
----
5874897|2|61|3000|2147483493
SELECT 1

select date 'infinity' + time '01:00', date '-infinity' + time '01:00'
----
infinity|-infinity
SELECT 1

select date '294276-12-31' + time '24:00'
----
ERROR 22008: timestamp out of range

select make_timestamp(294276, 12, 31, 24, 0, 0)
----
ERROR 22008: timestamp out of range: 294276-12-31 24:00:00

# A span divided by what it is.
select interval '49 months' / 49, interval '49 days' / 49, interval '1 year 1 day' / 7
----
1 mon|1 day|1 mon 21 days 13:42:51.391543
SELECT 1

select interval '9223372036854 seconds' * 2
----
ERROR 22008: interval out of range

select interval '2562047788 hours', interval '-2562047788 hours'
----
2562047788:00:00|-2562047788:00:00
SELECT 1

# Bounds of arrays.
select '[2147483646:2147483646]={1}'::int[], array_upper('[2147483646:2147483646]={1}'::int[], 1)
----
[2147483646:2147483646]={1}|2147483646
SELECT 1

select bounds::int[] from (values ('[2147483647:2147483647]={1}')) v (bounds)
----
ERROR 54000: array lower bound is too large: 2147483647

select '[1:2]={1,2,3}'::int[]
----
ERROR 22P02: malformed array literal: "[1:2]={1,2,3}" (at 8)

select '[2:1]={1}'::int[]
----
ERROR 2202E: upper bound cannot be less than lower bound (at 8)

select '[2]={1,2}'::int[], '[0:1][2:2]={{1},{2}}'::int[]
----
{1,2}|[0:1][2:2]={{1},{2}}
SELECT 1

# The isolation level is fixed with the first query, also where it keeps no snapshot.
begin
----
BEGIN

select 1
----
1
SELECT 1

set transaction isolation level read committed
----
SET

set transaction isolation level repeatable read
----
ERROR 25001: SET TRANSACTION ISOLATION LEVEL must be called before any query

rollback
----
ROLLBACK

begin read only
----
BEGIN

show transaction_isolation
----
read committed
SHOW

set transaction isolation level repeatable read
----
SET

set transaction read write
----
SET

select 1
----
1
SELECT 1

rollback
----
ROLLBACK
