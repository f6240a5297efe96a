# REPEATABLE READ: one snapshot, and 40001 for a row that changed.
create table t (a int primary key, b int)
----
CREATE TABLE

insert into t values (1, 10), (2, 20)
----
INSERT 0 2

@one
begin isolation level repeatable read
----
BEGIN

@one
select * from t order by a
----
1|10
2|20
SELECT 2

@two
update t set b = 11 where a = 1
----
UPDATE 1

@two
insert into t values (3, 30)
----
INSERT 0 1

@one
select * from t order by a
----
1|10
2|20
SELECT 2

@one
update t set b = b + 1 where a = 2
----
UPDATE 1

@one
update t set b = b + 1 where a = 1
----
ERROR 40001: could not serialize access due to concurrent update

@one
rollback
----
ROLLBACK

@one
select * from t order by a
----
1|11
2|20
3|30
SELECT 3

@one
begin isolation level repeatable read
----
BEGIN

@one
select count(*) from t
----
3
SELECT 1

@two
begin
----
BEGIN

@two
delete from t where a = 3
----
DELETE 1

@one
delete from t where a = 3
----
WAIT

@two
commit
----
COMMIT
one: ERROR 40001: could not serialize access due to concurrent delete

@one
rollback
----
ROLLBACK

@one
begin isolation level repeatable read
----
BEGIN

@one
select count(*) from t
----
2
SELECT 1

@two
begin
----
BEGIN

@two
update t set b = 0 where a = 2
----
UPDATE 1

@one
update t set b = 1 where a = 2
----
WAIT

@two
rollback
----
ROLLBACK
one: UPDATE 1

@one
commit
----
COMMIT

select * from t order by a
----
1|11
2|1
SELECT 2

@one
begin
----
BEGIN

@one
select count(*) from t
----
2
SELECT 1

@two
insert into t values (9, 90)
----
INSERT 0 1

@one
select count(*) from t
----
3
SELECT 1

@one
commit
----
COMMIT

