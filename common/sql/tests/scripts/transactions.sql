# Blocks, their failures and warnings, and settings that follow them.
begin
----
BEGIN

begin
----
WARNING 25001: there is already a transaction in progress
BEGIN

commit
----
COMMIT

commit
----
WARNING 25P01: there is no transaction in progress
COMMIT

rollback
----
WARNING 25P01: there is no transaction in progress
ROLLBACK

begin
----
BEGIN

selec
----
ERROR 42601: syntax error at or near "selec" (at 1)

select 1
----
ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block

rollback
----
ROLLBACK

begin isolation level repeatable read, read only
----
BEGIN

show transaction_isolation
----
repeatable read
SHOW

create table x (a int)
----
ERROR 25006: cannot execute CREATE TABLE in a read-only transaction

commit
----
ROLLBACK

begin read only
----
BEGIN

show transaction_read_only
----
on
SHOW

rollback
----
ROLLBACK

set transaction isolation level repeatable read
----
WARNING 25P01: SET TRANSACTION can only be used in transaction blocks
SET

start transaction
----
START TRANSACTION

set transaction isolation level repeatable read
----
SET

select 1
----
1
SELECT 1

set transaction isolation level read committed
----
ERROR 25001: SET TRANSACTION ISOLATION LEVEL must be called before any query

rollback
----
ROLLBACK

set local work_mem = '8MB'
----
WARNING 25P01: SET LOCAL can only be used in transaction blocks
SET

begin
----
BEGIN

set local work_mem = '8MB'
----
SET

show work_mem
----
8MB
SHOW

commit
----
COMMIT

show work_mem
----
4MB
SHOW

begin
----
BEGIN

set work_mem = '9MB'
----
SET

rollback
----
ROLLBACK

show work_mem
----
4MB
SHOW

begin
----
BEGIN

set work_mem = '9MB'
----
SET

commit
----
COMMIT

show work_mem
----
9MB
SHOW

reset work_mem
----
RESET

show work_mem
----
4MB
SHOW

set nope = 1
----
ERROR 42704: unrecognized configuration parameter "nope"

show nope
----
ERROR 42704: unrecognized configuration parameter "nope"

set work_mem = 'x'
----
ERROR 22023: invalid value for parameter "work_mem": "x"

set default_transaction_isolation = 'repeatable read'
----
SET

show transaction_isolation
----
repeatable read
SHOW

reset default_transaction_isolation
----
RESET

create table t (a int)
----
CREATE TABLE

insert into t values (1); select 1/0; insert into t values (2)
----
INSERT 0 1
ERROR 22012: division by zero

select * from t
----
SELECT 0

insert into t values (1); commit; select 1/0
----
INSERT 0 1
WARNING 25P01: there is no transaction in progress
COMMIT
ERROR 22012: division by zero

select * from t
----
1
SELECT 1

begin; insert into t values (2); commit; insert into t values (3); rollback
----
BEGIN
INSERT 0 1
COMMIT
INSERT 0 1
WARNING 25P01: there is no transaction in progress
ROLLBACK

select * from t order by 1
----
1
2
SELECT 2

begin; insert into t values (4)
----
BEGIN
INSERT 0 1

select count(*) from t
----
3
SELECT 1

rollback and chain
----
ROLLBACK

select count(*) from t
----
2
SELECT 1

commit
----
COMMIT

vacuum t
----
VACUUM

begin; vacuum t
----
BEGIN
ERROR 25001: VACUUM cannot run inside a transaction block

rollback
----
ROLLBACK

prepare p as select $1::int + 1
----
PREPARE

execute p(41)
----
42
SELECT 1

execute p(1, 2)
----
ERROR 42601: wrong number of parameters for prepared statement "p"

prepare p as select 1
----
ERROR 42P05: prepared statement "p" already exists

deallocate p
----
DEALLOCATE

execute p(1)
----
ERROR 26000: prepared statement "p" does not exist

prepare p (int) as insert into t values ($1)
----
PREPARE

execute p(77)
----
INSERT 0 1

deallocate all
----
DEALLOCATE ALL

select count(*) from t where a = 77
----
1
SELECT 1

lock table t
----
ERROR 25P01: LOCK TABLE can only be used in transaction blocks

begin; lock table t in exclusive mode; commit
----
BEGIN
LOCK TABLE
COMMIT

discard all
----
DISCARD ALL

set datestyle = 'german'; select date '2024-05-06'
----
SET
06.05.2024
SELECT 1

reset datestyle
----
RESET

;
----
EMPTY

----
----
EMPTY

checkpoint
----
CHECKPOINT

drop table t
----
DROP TABLE

