# Values that are stored out of line.
create table big (id int primary key, n int, t text, b bytea, v varchar(20000), num numeric, a text[])
----
CREATE TABLE

select relname, relkind, reltoastrelid <> 0 from pg_class where relname in ('big', 'big_pkey') order by 1
----
big|r|t
big_pkey|i|f
SELECT 2

insert into big (id, n, t) values (1, 1, (select string_agg(md5(i::text || 'a'), '' order by i) from generate_series(1, 100) i)), (2, 2, (select string_agg(md5(i::text || 'b'), '' order by i) from generate_series(1, 1000) i)), (3, 3, (select string_agg(md5(i::text || 'c'), '' order by i) from generate_series(1, 20000) i))
----
INSERT 0 3

insert into big (id, n, t) select 4, 4, string_agg(md5(i::text), '') from generate_series(1, 63) i
----
INSERT 0 1

insert into big (id, n, t) select 4 + g, g, string_agg(md5((i * g)::text), '' order by i) from generate_series(1, 20) g, generate_series(1, 200) i group by g
----
INSERT 0 20

select id, n, length(t), octet_length(t), md5(t), substr(t, 3000, 10), left(t, 3), right(t, 3) from big where id < 8 order by id
----
1|1|3200|3200|7499d9fe15ff8b0bc056a0bc43286de3|b9db16f750|efa|227
2|2|32000|32000|9a697b27d92a419a371b4b0c47328810|fd82e89ef5|a35|b1b
3|3|640000|640000|fe7ae413279e99bbdd2bd31e734c8f45|37092cb21d|aa8|eec
4|4|2016|2016|a00ed234c3bc2fba21e40470f2e7065b||c4c|3a4
5|1|6400|6400|7489150b15eff6c6397a46bf0d018c05|786cb62ef8|c4c|a77
6|2|6400|6400|94f1c2d1615afc11c5ad68b4f8156b32|2b040afadc|c81|5c8
7|3|6400|6400|be5563e905db5b7ec8fa1a9be0bd2fe7|3ab651bc50|ecc|ad1
SELECT 7

select count(*), sum(length(t)), md5(string_agg(t, '' order by id)) from big
----
24|805216|ff7bdc110ba77bb38ea84095f7c40979
SELECT 1

# All types that move.
update big set b = decode(t, 'hex'), v = case when length(t) <= 20000 then t end, a = array[t, null, reverse(t)] where id <> 3 returning id, length(b), length(v), array_length(a, 1)
----
1|1600|3200|3
2|16000|NULL|3
4|1008|2016|3
5|3200|6400|3
6|3200|6400|3
7|3200|6400|3
8|3200|6400|3
9|3200|6400|3
10|3200|6400|3
11|3200|6400|3
12|3200|6400|3
13|3200|6400|3
14|3200|6400|3
15|3200|6400|3
16|3200|6400|3
17|3200|6400|3
18|3200|6400|3
19|3200|6400|3
20|3200|6400|3
21|3200|6400|3
22|3200|6400|3
23|3200|6400|3
24|3200|6400|3
UPDATE 23

update big set num = ('1' || repeat('2345678901', 1300))::numeric where id < 4
----
UPDATE 3

select id, md5(b), md5(v), md5(a[3]), length(num::text), md5(num::text) from big where id < 6 order by id
----
1|865925cb494b58e056d5e668edc0112b|7499d9fe15ff8b0bc056a0bc43286de3|9002f9b94a8f8b5e7d714a379be0216d|13001|e3e063d4003a7512985cd8415449f01b
2|2930e5b788dcf520eddbd6a7b168dccd|NULL|47401d5049c6ca5245cda260a8c31cbf|13001|e3e063d4003a7512985cd8415449f01b
3|NULL|NULL|NULL|13001|e3e063d4003a7512985cd8415449f01b
4|09e28a9a467d4f900d766873e0ae9415|a00ed234c3bc2fba21e40470f2e7065b|a0c0e7fe7ee2af9c0c2a9e2c9c6ebef0|NULL|NULL
5|7fa12e2475bf2e64481a1970e7bc91a5|7489150b15eff6c6397a46bf0d018c05|e088f0e3dcae7f716184081eb40f2e02|NULL|NULL
SELECT 5

# Conditions, order, groups, joins on them.
select id from big where t = (select string_agg(md5(i::text || 'b'), '' order by i) from generate_series(1, 1000) i)
----
2
SELECT 1

select id from big where t like '%' || md5('1' || 'c') || '%'
----
3
SELECT 1

select id from big where id between 4 and 12 order by t limit 3
----
10
11
8
SELECT 3

select length(t), count(distinct t), min(id) from big group by length(t) order by 1
----
2016|1|4
3200|1|1
6400|20|5
32000|1|2
640000|1|3
SELECT 5

select l.id, r.id from big l join big r on l.t = r.t and l.id < r.id order by 1, 2
----
SELECT 0

select distinct length(x) from (select t as x from big union select v from big) s order by 1 nulls last
----
2016
3200
6400
32000
640000
NULL
SELECT 6

select id, (select length(max(i.t)) from big i where i.id <= o.id) from big o where id < 4 order by 1
----
1|3200
2|3200
3|3200
SELECT 3

# Only columns that are used are read.
select id, n from big where t > 'f' order by id
----
SELECT 0

# Updates that carry large values, replace them, and make them short.
update big set n = n + 100 where id < 5 returning id, n, md5(t)
----
4|104|a00ed234c3bc2fba21e40470f2e7065b
3|103|fe7ae413279e99bbdd2bd31e734c8f45
1|101|7499d9fe15ff8b0bc056a0bc43286de3
2|102|9a697b27d92a419a371b4b0c47328810
UPDATE 4

update big set n = n + 1, num = null where id = 2
----
UPDATE 1

select id, n, md5(t), md5(b), md5(v), md5(a[1]) from big where id < 5 order by id
----
1|101|7499d9fe15ff8b0bc056a0bc43286de3|865925cb494b58e056d5e668edc0112b|7499d9fe15ff8b0bc056a0bc43286de3|7499d9fe15ff8b0bc056a0bc43286de3
2|103|9a697b27d92a419a371b4b0c47328810|2930e5b788dcf520eddbd6a7b168dccd|NULL|9a697b27d92a419a371b4b0c47328810
3|103|fe7ae413279e99bbdd2bd31e734c8f45|NULL|NULL|NULL
4|104|a00ed234c3bc2fba21e40470f2e7065b|09e28a9a467d4f900d766873e0ae9415|a00ed234c3bc2fba21e40470f2e7065b|a00ed234c3bc2fba21e40470f2e7065b
SELECT 4

update big set t = t || 'x' where id in (1, 3)
----
UPDATE 2

select id, length(t), md5(t) from big where id in (1, 3) order by id
----
1|3201|5aaa514dd49fedd07967ae34ff133847
3|640001|d448bc2604998d83edf2aca03f1ec123
SELECT 2

update big set t = 'short' where id = 4 returning t, length(v), md5(b)
----
short|2016|09e28a9a467d4f900d766873e0ae9415
UPDATE 1

update big set t = v where id = 4
----
UPDATE 1

select id, t = v, length(t) from big where id = 4
----
4|t|2016
SELECT 1

begin
----
BEGIN

update big set t = repeat(t, 3), n = -1 where id = 2
----
UPDATE 1

update big set n = -2 where id = 2
----
UPDATE 1

select n, length(t), md5(t) from big where id = 2
----
-2|96000|731b01ea04b7c04019129e907e6b0802
SELECT 1

delete from big where id = 3
----
DELETE 1

select count(*), sum(length(t)) from big
----
23|229217
SELECT 1

rollback
----
ROLLBACK

select id, n, length(t), md5(t) from big where id in (2, 3) order by id
----
2|103|32000|9a697b27d92a419a371b4b0c47328810
3|103|640001|d448bc2604998d83edf2aca03f1ec123
SELECT 2

delete from big where id = 3 returning length(t), md5(t)
----
640001|d448bc2604998d83edf2aca03f1ec123
DELETE 1

# From one table to another.
create table copied as select id, t, b from big where id < 10
----
SELECT 8

insert into copied select id + 100, t, b from big where id < 10 returning id, length(t), md5(b)
----
102|32000|2930e5b788dcf520eddbd6a7b168dccd
101|3201|865925cb494b58e056d5e668edc0112b
105|6400|7fa12e2475bf2e64481a1970e7bc91a5
106|6400|05de703611073b63da455493f072b3d4
107|6400|9bce7404d79c49907ec468923d8a0bdc
108|6400|630f7b83a1c6bdc2423b430adcd810ba
109|6400|b4fd7a35f872780376f9fb62fa632ce1
104|2016|09e28a9a467d4f900d766873e0ae9415
INSERT 0 8

select count(*), md5(string_agg(t, '' order by id)) from copied
----
16|fd6e40a9ea99f393cdd4fb6884407bbe
SELECT 1

drop table big
----
DROP TABLE

select count(*), md5(string_agg(t, '' order by id)) from copied
----
16|fd6e40a9ea99f393cdd4fb6884407bbe
SELECT 1

# Which tables have a place for large values.
create table bounded (id int, v varchar(501), c char(10))
----
CREATE TABLE

create table wider (id int, v varchar(510), c char(10))
----
CREATE TABLE

create table digits (n numeric(10, 2))
----
CREATE TABLE

select relname, reltoastrelid <> 0 from pg_class where relname in ('bounded', 'wider', 'digits', 'copied') order by 1
----
bounded|t
copied|t
digits|f
wider|t
SELECT 4

# Keys that are out of line in the row are whole in the index.
create table keys (id int primary key, k text, filler text, filler2 text)
----
CREATE TABLE

insert into keys select 1, repeat('key ', 2000), (select string_agg(md5(i::text || 'f'), '' order by i) from generate_series(1, 40) i), (select string_agg(md5(i::text || 'g'), '' order by i) from generate_series(1, 40) i)
----
INSERT 0 1

insert into keys select 2, repeat('key ', 2001), (select string_agg(md5(i::text || 'h'), '' order by i) from generate_series(1, 40) i), (select string_agg(md5(i::text || 'i'), '' order by i) from generate_series(1, 40) i)
----
INSERT 0 1

create unique index keys_k on keys (k)
----
CREATE INDEX

select id from keys where k = repeat('key ', 2001)
----
2
SELECT 1

insert into keys select 3, repeat('key ', 2000), (select string_agg(md5(i::text || 'f'), '' order by i) from generate_series(1, 400) i), (select string_agg(md5(i::text || 'g'), '' order by i) from generate_series(1, 400) i)
----
ERROR 23505: duplicate key value violates unique constraint "keys_k"

insert into keys select 3, repeat('key ', 2002), (select string_agg(md5(i::text || 'f'), '' order by i) from generate_series(1, 400) i), (select string_agg(md5(i::text || 'g'), '' order by i) from generate_series(1, 400) i)
----
INSERT 0 1

update keys set filler = 'x' where id = 3
----
UPDATE 1

select id, length(k), length(filler), length(filler2) from keys where k > repeat('key ', 1999) order by k
----
1|8000|1280|1280
2|8004|1280|1280
3|8008|1|12800
SELECT 3

# The row of a message is shown as it is, however it is stored.
create table required (id int, n int not null, t text)
----
CREATE TABLE

insert into required values (1, 1, (select string_agg(md5(i::text || 'r'), '' order by i) from generate_series(1, 500) i))
----
INSERT 0 1

update required set n = null where id = 1
----
ERROR 23502: null value in column "n" of relation "required" violates not-null constraint

# What an update only carries is not written again.
create table sized (id int primary key, n int, t text)
----
CREATE TABLE

insert into sized values (1, 0, (select string_agg(md5(i::text || 'q'), '' order by i) from generate_series(1, 20000) i))
----
INSERT 0 1

update sized set n = n + 1
----
UPDATE 1

update sized set n = n + 1 where id = 1
----
UPDATE 1

update sized s set n = s.n + v from (values (1, 5), (2, 6)) x (k, v) where s.id = x.k
----
UPDATE 1

update sized set id = 2
----
UPDATE 1

select id, n, length(t), md5(t), pg_table_size('sized') < 900000 from sized
----
2|7|640000|1f9b32e3c0591cd6b8d411f6b88bdb10|t
SELECT 1

update sized set t = upper(t)
----
UPDATE 1

select pg_table_size('sized') > 900000 from sized
----
t
SELECT 1

delete from sized
----
DELETE 1

vacuum sized
----
VACUUM

select pg_table_size('sized') < 200000
----
t
SELECT 1

drop table sized
----
DROP TABLE

# VACUUM and TRUNCATE.
vacuum copied
----
VACUUM

select count(*), sum(length(b)) from copied
----
16|69216
SELECT 1

select pg_total_relation_size('copied') > pg_relation_size('copied') + 50000, pg_table_size('copied') > pg_relation_size('copied') + 50000
----
t|t
SELECT 1

truncate copied
----
TRUNCATE TABLE

select count(*) from copied
----
0
SELECT 1

select pg_relation_size('copied'), pg_total_relation_size('copied') <= 16384
----
0|t
SELECT 1

insert into copied (id, b) values (1, decode((select string_agg(md5(i::text || 'z'), '' order by i) from generate_series(1, 5000) i), 'hex'))
----
INSERT 0 1

select id, length(b), md5(b) from copied
----
1|80000|dd1d46e7ba36a6d75913973b4d9ce161
SELECT 1

drop table copied, bounded, wider, digits, keys, required
----
DROP TABLE

