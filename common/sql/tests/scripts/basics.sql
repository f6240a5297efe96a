# Literals, operators, names of nothing.
select 1
----
1
SELECT 1

select 1 + 1, 'a' || 'b', true and null, 7 / 2, 7.0 / 2, -7 % 3
----
2|ab|NULL|3|3.5000000000000000|-1
SELECT 1

select 1 as x, 2 as y order by 1 desc
----
1|2
SELECT 1

select * from nope
----
ERROR 42P01: relation "nope" does not exist (at 15)

select nope
----
ERROR 42703: column "nope" does not exist (at 8)

selec 1
----
ERROR 42601: syntax error at or near "selec" (at 1)

select 1 +
----
ERROR 42601: syntax error at end of input (at 11)

select 'abc'::int
----
ERROR 22P02: invalid input syntax for type integer: "abc" (at 8)

select 1 / 0
----
ERROR 22012: division by zero

select 1; select 2; select 3
----
1
SELECT 1
2
SELECT 1
3
SELECT 1

create table t (a int primary key, b text not null default 'dflt', c numeric(10,2), d timestamp)
----
CREATE TABLE

insert into t values (1, 'one', 1.5, '2024-01-02 03:04:05')
----
INSERT 0 1

insert into t (a) values (2), (3)
----
INSERT 0 2

insert into t (a, b) values (2, 'dup')
----
ERROR 23505: duplicate key value violates unique constraint "t_pkey"

insert into t (a, b) values (4, null)
----
ERROR 23502: null value in column "b" of relation "t" violates not-null constraint

insert into t (a, x) values (4, null)
----
ERROR 42703: column "x" of relation "t" does not exist (at 19)

select * from t order by a
----
1|one|1.50|2024-01-02 03:04:05
2|dflt|NULL|NULL
3|dflt|NULL|NULL
SELECT 3

select a, b from t where a > 1 order by a desc limit 1
----
3|dflt
SELECT 1

update t set b = b || '!', c = coalesce(c, 0) + 1 where a <> 2
----
UPDATE 2

select * from t order by 1
----
1|one!|2.50|2024-01-02 03:04:05
2|dflt|NULL|NULL
3|dflt!|1.00|NULL
SELECT 3

delete from t where a = 3 returning a, b
----
3|dflt!
DELETE 1

update t set a = a + 10 returning *
----
12|dflt|NULL|NULL
11|one!|2.50|2024-01-02 03:04:05
UPDATE 2

select count(*), sum(a), min(b), max(c), avg(a) from t
----
2|23|dflt|2.50|11.5000000000000000
SELECT 1

select a % 2 as odd, count(*) from t group by 1 order by 1
----
0|1
1|1
SELECT 2

select b from t group by a order by b
----
dflt
one!
SELECT 2

select b, count(*) from t
----
ERROR 42803: column "t.b" must appear in the GROUP BY clause or be used in an aggregate function (at 8)

select a from t where sum(a) > 1
----
ERROR 42803: aggregate functions are not allowed in WHERE (at 23)

select t.a, u.a from t, t u where t.a = u.a order by 1
----
11|11
12|12
SELECT 2

select t.a, u.a from t left join (values (11)) u(a) on t.a = u.a order by t.a
----
11|11
12|NULL
SELECT 2

select x from generate_series(1, 3) x
----
1
2
3
SELECT 3

select a from t union select 12 union all select 13 order by 1
----
11
12
13
SELECT 3

select (select max(a) from t), exists (select 1 from t where a = 11), 11 in (select a from t)
----
12|t|t
SELECT 1

with w as (select a from t) select * from w where a = 11
----
11
SELECT 1

select distinct b from t order by b
----
dflt
one!
SELECT 2

begin
----
BEGIN

insert into t (a) values (100)
----
INSERT 0 1

select 1/0
----
ERROR 22012: division by zero

select 1
----
ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block

commit
----
ROLLBACK

select count(*) from t
----
2
SELECT 1

commit
----
WARNING 25P01: there is no transaction in progress
COMMIT

begin; insert into t (a) values (100); rollback
----
BEGIN
INSERT 0 1
ROLLBACK

select count(*) from t
----
2
SELECT 1

show block_size
----
8192
SHOW

set work_mem = '64MB'
----
SET

show work_mem
----
64MB
SHOW

truncate t
----
TRUNCATE TABLE

select count(*) from t
----
0
SELECT 1

drop table t
----
DROP TABLE

drop table t
----
ERROR 42P01: table "t" does not exist

drop table if exists t
----
NOTICE 00000: table "t" does not exist, skipping
DROP TABLE

