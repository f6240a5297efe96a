# Statements at the edges: NULL order, overflow, escapes, dates, casts, COPY options, definitions, prepared statements.
create table adv (a int, b bigint, n numeric(8,2), f float8, t text, d date, ts timestamp, tz timestamptz, bo bool, by bytea)
----
CREATE TABLE

insert into adv values (1, 10, 1.5, 0.5, 'one', '2020-02-29', '2020-02-29 12:00', '2020-02-29 12:00+02', true, '\x00ff'), (2, null, -2.25, 'nan', 'Two', null, null, null, false, ''), (null, -5, null, '-infinity', null, 'infinity', '-infinity', 'infinity', null, null)
----
INSERT 0 3

select a from adv order by a nulls first
----
NULL
1
2
SELECT 3

select a from adv order by a desc
----
NULL
2
1
SELECT 3

select f from adv order by f
----
-Infinity
0.5
NaN
SELECT 3

select d, ts from adv order by d desc
----
NULL|NULL
infinity|-infinity
2020-02-29|2020-02-29 12:00:00
SELECT 3

select count(*), count(a), sum(b), avg(n), min(t), max(d) from adv
----
3|2|5|-0.37500000000000000000|Two|infinity
SELECT 1

select sum(a), avg(f) from adv where false
----
NULL|NULL
SELECT 1

select bo, count(*) from adv group by bo order by bo
----
f|1
t|1
NULL|1
SELECT 3

select bo, count(*) from adv group by bo having count(*) > 5
----
SELECT 0

select a, count(*) from adv
----
ERROR 42803: column "adv.a" must appear in the GROUP BY clause or be used in an aggregate function (at 8)

select a from adv where a = all (select b from adv where false)
----
1
2
NULL
SELECT 3

select a from adv where a not in (select b from adv)
----
SELECT 0

select a from adv where a in (1, null)
----
1
SELECT 1

select null in (1, 2), 1 in (1, null), 3 not in (1, null)
----
NULL|t|NULL
SELECT 1

select a, (select max(b) from adv x where x.a < adv.a) from adv order by 1
----
1|NULL
2|10
NULL|NULL
SELECT 3

select (select a from adv)
----
ERROR 21000: more than one row returned by a subquery used as an expression

select x.a, y.a from adv x left join adv y on x.a = y.a + 1 order by 1, 2
----
1|NULL
2|1
NULL|NULL
SELECT 3

select x.a, y.b from adv x full join adv y on x.a = y.b order by 1, 2
----
1|NULL
2|NULL
NULL|-5
NULL|10
NULL|NULL
NULL|NULL
SELECT 6

select a from adv union select 1 order by 1
----
1
2
NULL
SELECT 3

select a from adv except all select 1 order by 1
----
2
NULL
SELECT 2

select 1 union select 'x'
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 23)

select 2147483647 + 1
----
ERROR 22003: integer out of range

select -2147483648 / -1
----
ERROR 22003: integer out of range

select (-2147483648)::int / -1
----
ERROR 22003: integer out of range

select (-32768)::int2 * (-1)::int2
----
ERROR 22003: smallint out of range

select 9223372036854775807 + 1
----
ERROR 22003: bigint out of range

select (-9223372036854775808)::bigint % -1
----
0
SELECT 1

select 5 / 0
----
ERROR 22012: division by zero

select 5 % 0
----
ERROR 22012: division by zero

select 5.0 / 0
----
ERROR 22012: division by zero

select 5e0::float8 / 0
----
ERROR 22012: division by zero

select 'nan'::numeric / 0
----
NaN
SELECT 1

select 1e308::float8 * 10
----
ERROR 22003: value out of range: overflow

select 1e-308::float8 / 1e10
----
1e-318
SELECT 1

select 1.5::int, 2.5::int, -2.5::int, 2.5::float8::int
----
2|3|-3|2
SELECT 1

select 'inf'::float8::int
----
ERROR 22003: integer out of range

select 32768::int2
----
ERROR 22003: smallint out of range

select 1e10::float4::int
----
ERROR 22003: integer out of range

select 123456.789::numeric(5,2)
----
ERROR 22003: numeric field overflow

select 0.005::numeric(3,2), 1234::numeric(3,-1)
----
0.01|1230
SELECT 1

select '1_000'::int
----
ERROR 22P02: invalid input syntax for type integer: "1_000" (at 8)

select ' 12 '::int, '+5'::int, '-0'::int
----
12|5|0
SELECT 1

select '0x10'::int
----
ERROR 22P02: invalid input syntax for type integer: "0x10" (at 8)

select ''::int
----
ERROR 22P02: invalid input syntax for type integer: "" (at 8)

select 'abc'::bool
----
ERROR 22P02: invalid input syntax for type boolean: "abc" (at 8)

select 'T'::bool, 'of'::bool, ' on '::bool
----
t|f|t
SELECT 1

select 'o'::bool
----
ERROR 22P02: invalid input syntax for type boolean: "o" (at 8)

select 10 / 3, -10 / 3, 10 % -3, -10 % 3
----
3|-3|1|-1
SELECT 1

select 10.0 / 3, 1::numeric / 3, 2 ^ 0.5, 2::numeric ^ 0.5
----
3.3333333333333333|0.33333333333333333333|1.4142135623730950|1.4142135623730950
SELECT 1

select round(2.5), round(-2.5), round(2.567, 2), round(1234.5, -2), trunc(-2.7), ceil(-2.5), floor(-2.5)
----
3|-3|2.57|1200|-2|-2|-3
SELECT 1

select sqrt(-1::numeric)
----
ERROR 2201F: cannot take square root of a negative number

select ln(0::numeric)
----
ERROR 2201E: cannot take logarithm of zero

select 0::numeric ^ -1
----
ERROR 2201F: zero raised to a negative power is undefined

select (-8)::numeric ^ 0.5
----
ERROR 2201F: a negative number raised to a non-integer power yields a complex result

select power(2, 10), mod(7, 3), gcd(12, 18), lcm(4, 6), sign(-3.2)
----
1024|1|6|12|-1
SELECT 1

select 'a' || null, 'a' || 1, concat('a', null, 1)
----
NULL|a1|a1
SELECT 1

select length('héllo'), octet_length('héllo'), upper('héllo'), reverse('añb')
----
5|6|HéLLO|bña
SELECT 1

select substring('hello' from 2 for 3), substring('hello' from -1 for 3), left('hello', -2), right('hello', -2)
----
ell|h|hel|llo
SELECT 1

select substring('hello' from 2 for -1)
----
ERROR 22011: negative substring length not allowed

select position('l' in 'hello'), strpos('hello', ''), repeat('ab', -1), lpad('x', 5, 'ab'), rpad('hello', 2)
----
3|1||ababx|he
SELECT 1

select split_part('a,b,c', ',', 2), split_part('a,b,c', ',', -1)
----
b|c
SELECT 1

select split_part('a,b,c', ',', 0)
----
ERROR 22023: field position must not be zero

select translate('12345', '143', 'ax'), replace('aaa', 'a', 'bb'), initcap('hELLO wORLD'), trim(both 'x' from 'xxaxx')
----
a2x5|bbbbbb|Hello World|a
SELECT 1

select chr(0)
----
ERROR 54000: null character not permitted

select chr(-1)
----
ERROR 22023: character number must be positive

select ascii(''), ascii('é'), chr(233)
----
0|233|é
SELECT 1

select E'a\nb\x41\u00e9', 'a\nb', E'\'', $$it's$$, $q$a$$b$q$
----
a\nbAé|a\nb|'|it's|a$$b
SELECT 1

select 'abc' like 'abc\'
----
f
SELECT 1

select 'abc' ~ '^a.c$', 'abc' ~* 'B', 'abc' !~ 'x', regexp_replace('abcabc', 'b', 'X', 'g')
----
t|t|t|aXcaXc
SELECT 1

select 'abc' ~ '('
----
ERROR 2201B: invalid regular expression: parentheses () not balanced

select date '2020-02-30'
----
ERROR 22008: date/time field value out of range: "2020-02-30" (at 13)

select date '2020-02-29' + 1, date '2020-03-01' - date '2020-02-28', date '2020-01-31' + interval '1 month'
----
2020-03-01|2|2020-02-29 00:00:00
SELECT 1

select timestamp '2020-01-31 10:00' + interval '1 month 1 day', interval '1 year' - interval '13 months'
----
2020-03-01 10:00:00|-1 mons
SELECT 1

select interval '1 day 25:00:00', interval '1.5 months', interval 'P1Y2M3DT4H5M6S', interval '-1 day +02:03'
----
1 day 25:00:00|1 mon 15 days|1 year 2 mons 3 days 04:05:06|-1 days +02:03:00
SELECT 1

select interval '99999999999 years'
----
ERROR 22015: interval field value out of range: "99999999999 years" (at 17)

select interval 'abc'
----
ERROR 22007: invalid input syntax for type interval: "abc" (at 17)

select interval '1 foo'
----
ERROR 22007: invalid input syntax for type interval: "1 foo" (at 17)

select '1 2'::interval, '1:2:3.4567891'::interval
----
ERROR 22007: invalid input syntax for type interval: "1 2" (at 8)

select 'FFFFFFFF/FFFFFFFF'::pg_lsn, '0/0'::pg_lsn + 16, '1/0'::pg_lsn - '0/1'::pg_lsn
----
FFFFFFFF/FFFFFFFF|0/10|4294967295
SELECT 1

select '0/123456789'::pg_lsn
----
ERROR 22P02: invalid input syntax for type pg_lsn: "0/123456789" (at 8)

select 'x/1'::pg_lsn
----
ERROR 22P02: invalid input syntax for type pg_lsn: "x/1" (at 8)

select '0/0'::pg_lsn + 'nan'::numeric
----
ERROR 0A000: cannot add NaN to pg_lsn

select extract(year from date '2020-02-29'), extract(dow from date '2020-02-29'), extract(epoch from interval '1 day'), date_part('week', date '2021-01-01')
----
2020|6|86400.000000|53
SELECT 1

select extract(hour from date '2020-02-29')
----
ERROR 0A000: unit "hour" not supported for type date

select extract(foo from date '2020-02-29')
----
ERROR 22023: unit "foo" not recognized for type date

select date_trunc('month', timestamp '2020-02-29 12:34:56'), date_trunc('week', timestamp '2020-02-29 12:34:56')
----
2020-02-01 00:00:00|2020-02-24 00:00:00
SELECT 1

select date_trunc('foo', timestamp '2020-02-29')
----
ERROR 22023: unit "foo" not recognized for type timestamp without time zone

select timestamptz '2020-06-15 12:00 America/New_York' at time zone 'UTC', timestamp '2020-06-15 12:00' at time zone 'Europe/Berlin'
----
2020-06-15 16:00:00|2020-06-15 10:00:00+00
SELECT 1

select timestamptz '2020-06-15 12:00 Nowhere/None'
----
ERROR 22023: time zone "nowhere/none" not recognized (at 20)

select timestamp '294277-01-01'
----
ERROR 22008: timestamp out of range: "294277-01-01" (at 18)

select timestamp '4714-01-01 BC'
----
ERROR 22008: timestamp out of range: "4714-01-01 BC" (at 18)

select date 'infinity' - date '2020-01-01'
----
ERROR 22008: cannot subtract infinite dates

select age(timestamp '2020-03-01', timestamp '2020-01-31'), justify_hours(interval '49 hours'), justify_days(interval '65 days')
----
1 mon 1 day|2 days 01:00:00|2 mons 5 days
SELECT 1

select to_date('2020-13-01', 'YYYY-MM-DD')
----
ERROR 22008: date/time field value out of range: "2020-13-01"

select array[1,'x']
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 16)

select 1 = any(array[1,2]), 5 > all(array[1,null]), array_position(array['a','b'], 'b'), unnest(array[1,2])
----
t|NULL|2|1
t|NULL|2|2
SELECT 2

select coalesce(null, null), nullif(1, 1), greatest(1, null, 3), least('a', 'b')
----
NULL|NULL|3|a
SELECT 1

select case when 1 = 1 then 'a' end, case 1 when 2 then 'x' else 'y' end
----
a|y
SELECT 1

select * from adv where nosuch > 1
----
ERROR 42703: column "nosuch" does not exist (at 25)

select adv from nosuch
----
ERROR 42P01: relation "nosuch" does not exist (at 17)

select nosuch(1)
----
ERROR 42883: function nosuch(integer) does not exist (at 8)

select max(count(*)) from adv
----
ERROR 42803: aggregate function calls cannot be nested (at 12)

select a from adv where count(*) > 1
----
ERROR 42803: aggregate functions are not allowed in WHERE (at 25)

select a from adv limit -1
----
ERROR 2201W: LIMIT must not be negative

select a from adv order by a limit null offset 1
----
2
NULL
SELECT 2

select a from adv offset -1
----
ERROR 2201X: OFFSET must not be negative

select t from adv order by length(t) desc nulls last, t collate "C"
----
Two
one
NULL
SELECT 3

values (1, 'a'), (2, null) order by 1 desc
----
2|NULL
1|a
SELECT 2

values (1), (2, 3)
----
ERROR 42601: VALUES lists must all be the same length (at 14)

insert into adv (a, a) values (1, 2)
----
ERROR 42701: column "a" specified more than once (at 21)

insert into adv (n) values (1234567)
----
ERROR 22003: numeric field overflow

insert into adv (a) values ('x')
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 29)

update adv set a = a + 2147483647 where a = 2
----
ERROR 22003: integer out of range

update adv set a = 1, a = 2
----
ERROR 42601: multiple assignments to same column "a"

delete from adv where a = 'x'
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 27)

create table adv (a int)
----
ERROR 42P07: relation "adv" already exists

create table if not exists adv (a int)
----
NOTICE 42P07: relation "adv" already exists, skipping
CREATE TABLE

create table adv2 (a int, a text)
----
ERROR 42701: column "a" specified more than once

create table adv2 (a int primary key, b int primary key)
----
ERROR 42P16: multiple primary keys for table "adv2" are not allowed (at 45)

create table adv2 (a varchar(0))
----
ERROR 22023: length for type varchar must be at least 1 (at 22)

create table adv2 (a numeric(1001))
----
ERROR 22023: NUMERIC precision 1001 must be between 1 and 1000 (at 22)

create table adv2 (a nosuch)
----
ERROR 42704: type "nosuch" does not exist (at 22)

create index on adv (nosuch)
----
ERROR 42703: column "nosuch" does not exist

create unique index adv_t on adv (t)
----
CREATE INDEX

insert into adv (t) values ('one')
----
ERROR 23505: duplicate key value violates unique constraint "adv_t"

prepare p as select $1::int + 1
----
PREPARE

execute p(1)
----
2
SELECT 1

execute p
----
ERROR 42601: wrong number of parameters for prepared statement "p"

execute p(1, 2)
----
ERROR 42601: wrong number of parameters for prepared statement "p"

prepare p as select 1
----
ERROR 42P05: prepared statement "p" already exists

deallocate p
----
DEALLOCATE

execute p
----
ERROR 26000: prepared statement "p" does not exist

prepare q(int, text) as select $1, $2, $3
----
PREPARE

copy adv to stdout (format nosuch)
----
ERROR 22023: COPY format "nosuch" not recognized (at 21)

copy adv to stdout (delimiter 'ab')
----
ERROR 0A000: COPY delimiter must be a single one-byte character

copy adv to stdout (format csv, quote 'ab')
----
ERROR 0A000: COPY quote must be a single one-byte character

copy adv to stdout (nosuch 1)
----
ERROR 42601: option "nosuch" not recognized (at 21)

select md5('a'), encode(sha256('a'), 'hex'), encode('\x00ff'::bytea, 'escape'), '\x0g'::bytea
----
ERROR 22023: invalid hexadecimal digit: "g" (at 81)

select '\x0'::bytea
----
ERROR 22023: invalid hexadecimal data: odd number of digits (at 8)

select get_byte('\x01'::bytea, 1)
----
ERROR 2202E: index 1 out of valid range, 0..0

select 1::text::int::bool, true::int, 2::bool, 'true'::text::bool
----
t|1|t|t
SELECT 1

select true + 1
----
ERROR 42883: operator does not exist: boolean + integer (at 13)

select 1 + '1', '1' + '1'
----
ERROR 42725: operator is not unique: unknown + unknown (at 21)

select 1 = 'x'
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 12)

select null = null, null is null, 1 is distinct from null, null is not distinct from null
----
NULL|t|t|t
SELECT 1

select not null, true and null, false and null, true or null
----
NULL|NULL|f|t
SELECT 1

select row(1, null) is null, row(null, null) is null, (1, 2) < (1, 3), (1, null) = (1, 2)
----
f|t|t|NULL
SELECT 1

select (1, 2) = (1, 2, 3)
----
ERROR 42601: unequal number of entries in row expressions (at 15)

select generate_series(1, 5, 0)
----
ERROR 22023: step size cannot equal zero

select generate_series(3, 1), 1
----
SELECT 0

select generate_series(1, 3), generate_series(1, 2)
----
1|1
2|2
3|NULL
SELECT 3

drop table adv, nosuch
----
ERROR 42P01: table "nosuch" does not exist

drop table adv
----
DROP TABLE
