# An index made after a snapshot lacks the versions that the snapshot sees: it is not used.
create table t (a int, b int)
----
CREATE TABLE

insert into t select i, i from generate_series(1, 2000) i
----
INSERT 0 2000

@one
begin isolation level repeatable read
----
BEGIN

@one
select count(*) from t
----
2000
SELECT 1

update t set b = b + 1, a = a + 10000 where a = 1500
----
UPDATE 1

@one
commit
----
COMMIT

@one
begin isolation level repeatable read
----
BEGIN

@one
select 1
----
1
SELECT 1

update t set a = a + 20000 where a = 700
----
UPDATE 1

create index t_a on t (a)
----
CREATE INDEX

@one
select a, b from t where a = 700
----
700|700
SELECT 1

@one
select a, b from t where a = 20700
----
SELECT 0

@one
commit
----
COMMIT

@one
select a, b from t where a = 20700
----
20700|700
SELECT 1
