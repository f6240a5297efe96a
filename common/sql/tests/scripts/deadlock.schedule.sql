# A circle of two is broken; the other goes on.
create table t (a int primary key, b int)
----
CREATE TABLE

insert into t values (1, 10), (2, 20)
----
INSERT 0 2

@one
set deadlock_timeout = '100s'
----
SET

@two
set deadlock_timeout = '10ms'
----
SET

@one
begin
----
BEGIN

@two
begin
----
BEGIN

@one
update t set b = 11 where a = 1
----
UPDATE 1

@two
update t set b = 22 where a = 2
----
UPDATE 1

@one
update t set b = 12 where a = 2
----
WAIT

@two
update t set b = 21 where a = 1
----
ERROR 40P01: deadlock detected
one: UPDATE 1

@two
select 1
----
ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block

@two
rollback
----
ROLLBACK

@one
commit
----
COMMIT

select * from t order by a
----
1|11
2|12
SELECT 2

