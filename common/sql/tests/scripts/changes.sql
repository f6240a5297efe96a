# INSERT, UPDATE, DELETE with everything around them.
create table t (a int primary key, b text default 'dflt', c int not null default 7)
----
CREATE TABLE

create table s (a int, b text)
----
CREATE TABLE

insert into t values (1)
----
INSERT 0 1

insert into t values (2, default, 5), (3, 'x', default)
----
INSERT 0 2

insert into t default values
----
ERROR 23502: null value in column "a" of relation "t" violates not-null constraint

insert into t values (1, 'again')
----
ERROR 23505: duplicate key value violates unique constraint "t_pkey"

insert into t (b, a) values ('swap', 4) returning a, b, c
----
4|swap|7
INSERT 0 1

insert into t (a, a) values (1, 2)
----
ERROR 42701: column "a" specified more than once (at 19)

insert into t values (1, 2, 3, 4)
----
ERROR 42601: INSERT has more expressions than target columns (at 32)

insert into t (a, b) values (1)
----
ERROR 42601: INSERT has more target columns than expressions (at 19)

insert into t (a) values (5, 6)
----
ERROR 42601: INSERT has more expressions than target columns (at 30)

insert into t (a) values ('x')
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 27)

insert into t values (5, 'y', null)
----
ERROR 23502: null value in column "c" of relation "t" violates not-null constraint

insert into t (a, b) values (5, 6)
----
INSERT 0 1

insert into t (a) values (1.5), (99999999999)
----
ERROR 22003: integer out of range

insert into t (a) values (true)
----
ERROR 42804: column "a" is of type integer but expression is of type boolean (at 27)

insert into s select a, b from t where a < 3
----
INSERT 0 2

insert into s select 'a', 'b'
----
ERROR 22P02: invalid input syntax for type integer: "a" (at 22)

insert into s (b) select 'only b'
----
INSERT 0 1

insert into s select * from t
----
ERROR 42601: INSERT has more expressions than target columns (at 22)

insert into s (a, b) select a, b from t order by a desc limit 1 returning *
----
5|6
INSERT 0 1

select * from s order by a, b
----
1|dflt
2|dflt
5|6
NULL|only b
SELECT 4

update t set b = 'u' || a, c = c + 1 where a <= 2 returning a, b, c
----
1|u1|8
2|u2|6
UPDATE 2

update t set b = default where a = 1
----
UPDATE 1

update t set (b, c) = ('row', 0) where a = 3
----
UPDATE 1

update t set c = null where a = 3
----
ERROR 23502: null value in column "c" of relation "t" violates not-null constraint

update t set c = c, c = c
----
ERROR 42601: multiple assignments to same column "c"

update t set nope = 1
----
ERROR 42703: column "nope" of relation "t" does not exist (at 14)

update t set a = 2 where a = 1
----
ERROR 23505: duplicate key value violates unique constraint "t_pkey"

update t set c = 'x'
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 18)

update t set c = true
----
ERROR 42804: column "c" is of type integer but expression is of type boolean (at 18)

update t set b = s.b from s where s.a = t.a and t.a = 2 returning t.a, s.b, t.b
----
2|dflt|dflt
UPDATE 1

update t x set c = x.c * 2 where x.a = 4
----
UPDATE 1

update t x set c = 1 where t.a = 4
----
ERROR 42P01: invalid reference to FROM-clause entry for table "t" (at 28)

update t set c = (select count(*) from s) where a = 4
----
UPDATE 1

update nope set a = 1
----
ERROR 42P01: relation "nope" does not exist (at 8)

update t set a = a where false
----
UPDATE 0

select * from t order by a
----
1|dflt|8
2|dflt|6
3|row|0
4|swap|4
5|6|7
SELECT 5

delete from s using t where s.a = t.a and t.a = 1
----
DELETE 1

delete from s where b = 'only b' returning *
----
NULL|only b
DELETE 1

delete from t where a = 4
----
DELETE 1

delete from t returning a
----
5
1
3
2
DELETE 4

delete from nope
----
ERROR 42P01: relation "nope" does not exist (at 13)

select count(*) from s
----
2
SELECT 1

insert into s values (1, 'one') returning s.*, a + 1 as next
----
1|one|2
INSERT 0 1

with w as (select 42 as a) insert into s select a, 'w' from w returning a
----
42
INSERT 0 1

with w as (select 42 as a) update s set b = 'ww' from w where w.a = s.a
----
UPDATE 1

with w as (select 42 as a) delete from s using w where w.a = s.a
----
DELETE 1

create table u (a int unique, b int, unique (a, b))
----
CREATE TABLE

insert into u values (null, 1), (null, 1), (1, null)
----
INSERT 0 3

insert into u values (1, 2)
----
ERROR 23505: duplicate key value violates unique constraint "u_a_key"

update u set a = 1 where b = 1
----
ERROR 23505: duplicate key value violates unique constraint "u_a_key"

create table narrow (v varchar(3), c char(3), n numeric(4,2))
----
CREATE TABLE

insert into narrow values ('abcd', 'a', 1)
----
ERROR 22001: value too long for type character varying(3)

insert into narrow values ('abc', 'a', 123)
----
ERROR 22003: numeric field overflow

insert into narrow values ('abc   ', 'a', 1.239)
----
INSERT 0 1

select v, c || '|', n from narrow
----
abc|a||1.24
SELECT 1

drop table t, s, u, narrow
----
DROP TABLE

