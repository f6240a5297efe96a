# Row queues: who waits, and what is seen after.
create table t (a int primary key, b int)
----
CREATE TABLE

insert into t values (1, 10), (2, 20)
----
INSERT 0 2

@one
begin
----
BEGIN

@one
update t set b = b + 1 where a = 1
----
UPDATE 1

@two
update t set b = b * 2 where a = 1
----
WAIT

@three
update t set b = b + 100 where a = 1 returning b
----
WAIT

@four
select b from t where a = 1
----
10
SELECT 1

@one
commit
----
COMMIT
three: 111
three: UPDATE 1
two: UPDATE 1

select * from t order by a
----
1|222
2|20
SELECT 2

@one
begin
----
BEGIN

@one
delete from t where a = 1
----
DELETE 1

@two
update t set b = 0 where a = 1
----
WAIT

@one
commit
----
COMMIT
two: UPDATE 0

@one
insert into t values (1, 11)
----
INSERT 0 1

@one
begin
----
BEGIN

@one
update t set b = 12 where a = 1
----
UPDATE 1

@two
delete from t where b = 11
----
WAIT

@one
rollback
----
ROLLBACK
two: DELETE 1

select * from t order by a
----
2|20
SELECT 1

@one
begin
----
BEGIN

@one
insert into t values (5, 50)
----
INSERT 0 1

@two
insert into t values (5, 51)
----
WAIT

@one
commit
----
COMMIT
two: ERROR 23505: duplicate key value violates unique constraint "t_pkey"

@one
begin
----
BEGIN

@one
insert into t values (6, 60)
----
INSERT 0 1

@two
insert into t values (6, 61)
----
WAIT

@one
rollback
----
ROLLBACK
two: INSERT 0 1

select * from t order by a
----
2|20
5|50
6|61
SELECT 3

@one
begin
----
BEGIN

@one
select * from t where a = 2 for update
----
2|20
SELECT 1

@two
select * from t where a = 2 for update nowait
----
ERROR 55P03: could not obtain lock on row in relation "t"

@two
select * from t order by a for update skip locked
----
5|50
6|61
SELECT 2

@two
update t set b = 21 where a = 2
----
WAIT

@one
commit
----
COMMIT
two: UPDATE 1

@one
begin
----
BEGIN

@one
update t set b = 100 where a = 2
----
UPDATE 1

@two
update t set b = b + 1 where b < 50
----
WAIT

@one
commit
----
COMMIT
two: UPDATE 0

select * from t order by a
----
2|100
5|50
6|61
SELECT 3

@one
begin
----
BEGIN

@one
update t set b = b + 1 where a = 2
----
UPDATE 1

@two
begin
----
BEGIN

@two
update t set b = b + 1 where a = 6
----
UPDATE 1

@two
update t set b = b + 1 where a = 2
----
WAIT

@one
commit
----
COMMIT
two: UPDATE 1

@two
commit
----
COMMIT

select * from t order by a
----
2|102
5|50
6|62
SELECT 3

