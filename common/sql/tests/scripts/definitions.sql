# CREATE, DROP, ALTER, TRUNCATE and their refusals.
create table t (a int, b text)
----
CREATE TABLE

create table t (a int)
----
ERROR 42P07: relation "t" already exists

create table if not exists t (a int)
----
NOTICE 42P07: relation "t" already exists, skipping
CREATE TABLE

create table d (a int, a text)
----
ERROR 42701: column "a" specified more than once

create table d (a nope)
----
ERROR 42704: type "nope" does not exist (at 19)

create table d (a int primary key, b int primary key)
----
ERROR 42P16: multiple primary keys for table "d" are not allowed (at 42)

create table d (a varchar(0))
----
ERROR 22023: length for type varchar must be at least 1 (at 19)

create table d (a int default 'x')
----
ERROR 22P02: invalid input syntax for type integer: "x" (at 31)

create table d (a int default b)
----
ERROR 0A000: cannot use column reference in DEFAULT expression (at 31)

create table d (a int) with (fillfactor = 5)
----
ERROR 22023: value 5 out of bounds for option "fillfactor"

create table d (a int) with (fillfactor = 70)
----
CREATE TABLE

create table d2 (a int not null null)
----
ERROR 42601: conflicting NULL/NOT NULL declarations for column "a" of table "d2" (at 33)

alter table d add primary key (a)
----
ALTER TABLE

alter table d add primary key (a)
----
ERROR 42P16: multiple primary keys for table "d" are not allowed

alter table nope add primary key (a)
----
ERROR 42P01: relation "nope" does not exist

create index on t (a, b desc)
----
CREATE INDEX

create index t_a_b_idx on t (a)
----
ERROR 42P07: relation "t_a_b_idx" already exists

create unique index t_b on t (b)
----
CREATE INDEX

create index bad on t (nope)
----
ERROR 42703: column "nope" does not exist

insert into t values (1, 'x'), (2, 'x')
----
ERROR 23505: duplicate key value violates unique constraint "t_b"

insert into t values (1, 'x'), (2, 'y')
----
INSERT 0 2

create unique index t_a on t (a)
----
CREATE INDEX

insert into t values (1, 'z')
----
ERROR 23505: duplicate key value violates unique constraint "t_a"

drop index t_b
----
DROP INDEX

drop index t_b
----
ERROR 42704: index "t_b" does not exist

drop index if exists t_b
----
NOTICE 00000: index "t_b" does not exist, skipping
DROP INDEX

drop table t_a
----
ERROR 42809: "t_a" is not a table

drop index t
----
ERROR 42809: "t" is not an index

truncate t, nope
----
ERROR 42P01: relation "nope" does not exist

truncate table t
----
TRUNCATE TABLE

select count(*) from t
----
0
SELECT 1

create table c as select 1 as one, 'two'::text as two
----
SELECT 1

select * from c
----
1|two
SELECT 1

create table if not exists c as select 1
----
NOTICE 42P07: relation "c" already exists, skipping
CREATE TABLE AS

begin
----
BEGIN

create table txn (a int)
----
CREATE TABLE

insert into txn values (1)
----
INSERT 0 1

select * from txn
----
1
SELECT 1

rollback
----
ROLLBACK

select * from txn
----
ERROR 42P01: relation "txn" does not exist (at 15)

begin
----
BEGIN

drop table t
----
DROP TABLE

select 1 from t
----
ERROR 42P01: relation "t" does not exist (at 15)

rollback
----
ROLLBACK

select count(*) from t
----
0
SELECT 1

drop table t, d, c
----
DROP TABLE

drop table if exists t, d
----
NOTICE 00000: table "t" does not exist, skipping
NOTICE 00000: table "d" does not exist, skipping
DROP TABLE

drop table nope
----
ERROR 42P01: table "nope" does not exist

create role r login password 'x'
----
CREATE ROLE

create role r
----
ERROR 42710: role "r" already exists

alter role r nologin
----
ALTER ROLE

alter role nope login
----
ERROR 42704: role "nope" does not exist

drop role r
----
DROP ROLE

drop role r
----
ERROR 42704: role "r" does not exist

drop role if exists r
----
NOTICE 00000: role "r" does not exist, skipping
DROP ROLE

drop table pg_class
----
ERROR 42501: permission denied: "pg_class" is a system catalog


# What the statement before did in the same transaction counts: the index lacked those rows, and the NULL went unseen.
create table own (a int, b int)
----
CREATE TABLE

begin
----
BEGIN

insert into own values (2, 20), (1, 10)
----
INSERT 0 2

create index own_a on own (a, b)
----
CREATE INDEX

insert into own values (3, null)
----
INSERT 0 1

commit
----
COMMIT

select a, b from own order by a, b limit 10
----
1|10
2|20
3|NULL
SELECT 3

delete from own where a = 3
----
DELETE 1

begin
----
BEGIN

insert into own values (4, null)
----
INSERT 0 1

alter table own add primary key (b)
----
ERROR 23502: column "b" of relation "own" contains null values

rollback
----
ROLLBACK

drop table own
----
DROP TABLE
