-- What psql asks of the catalog when a user looks around.
create table films (id int primary key, title varchar(40) not null, kind char(3) default 'abc', price numeric(8,2) default 9.95, made date, seen timestamptz, note text unique);
create index films_made_title on films (made, title);
create table visits (film int, at timestamp, who text);
\d films
\d visits
\d films_pkey
\dt
\di
\dn
\l postgres
\d nosuch
\dt nosuch
insert into films (id, title) values (1, 'First'), (2, 'Second');
select * from films order by id;
\x
select id, title, note from films where id = 1;
\x
\a
select id, title from films order by id;
\a
\echo :ROW_COUNT
select count(*) as n from films \gset
\echo :n
\copy visits from stdin
1	2001-02-03 04:05:06	ann
2	\N	bob
\.
\copy (select film, who from visits order by film) to stdout with csv header
select * from visits order by film;
drop table visits;
drop table films;
