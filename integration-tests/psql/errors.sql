-- Errors as psql shows them: message, position, detail, hint, SQLSTATE.
\set VERBOSITY verbose
\set SHOW_CONTEXT never
\set VERBOSITY default
create table t (id int primary key, v int not null, s varchar(3));
selec 1;
select * from nosuch;
select nosuch from t;
select id from t where nosuch(id) = 1;
select 1 + 'x';
select 1 / 0;
select 'abc'::int;
select id, count(*) from t;
select * from t order by 3000;
insert into t values (1, 1, 'abc');
insert into t values (1, 2, 'abc');
insert into t values (2, null, 'abc');
insert into t values (3, 3, 'abcd');
insert into t (id, nosuch) values (1, 2);
insert into t values (1, 2, 'a', 4);
update t set nosuch = 1;
create table t (id int);
drop table nosuch;
drop table if exists nosuch;
select date '2001-02-30';
select timestamp 'yesterday noon or so';
select 99999999999999999999::bigint;
select 2147483647 + 1;
begin;
select 1/0;
select 1;
rollback;
commit;
rollback;
select t.id from t u;
select 'unterminated;
';
select (1;
drop table t;
