# Definitions wait for readers and writers, and are seen when they commit.
create table t (a int)
----
CREATE TABLE

@one
begin
----
BEGIN

@one
insert into t values (1)
----
INSERT 0 1

@two
truncate t
----
WAIT

@one
commit
----
COMMIT
two: TRUNCATE TABLE

select count(*) from t
----
0
SELECT 1

@one
begin
----
BEGIN

@one
drop table t
----
DROP TABLE

@two
select * from t
----
WAIT

@one
rollback
----
ROLLBACK
two: SELECT 0

@one
begin
----
BEGIN

@one
drop table t
----
DROP TABLE

@two
select * from t
----
WAIT

@one
commit
----
COMMIT
two: ERROR 42P01: relation "t" does not exist (at 15)

@one
begin
----
BEGIN

@one
create table n (a int)
----
CREATE TABLE

@two
select * from n
----
ERROR 42P01: relation "n" does not exist (at 15)

@one
commit
----
COMMIT

@two
select * from n
----
SELECT 0

@one
begin
----
BEGIN

@one
select * from n
----
SELECT 0

@two
alter table n add primary key (a)
----
WAIT

@one
commit
----
COMMIT
two: ALTER TABLE

@one
begin; lock table n
----
BEGIN
LOCK TABLE

@two
select count(*) from n
----
WAIT

@one
commit
----
COMMIT
two: 0
two: SELECT 1

