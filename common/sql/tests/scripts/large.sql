# Values that are compressed in the row, and keys that are compressed in the index.
create table large (id int primary key, t text, v varchar(9000), n numeric, b bytea, a int[])
----
CREATE TABLE

insert into large select i, repeat('abc', i * 40), repeat('v', i * 100), repeat('1234', i * 10)::numeric, repeat('bytes', i * 20)::bytea, array[i, i + 1] from generate_series(1, 60) i
----
INSERT 0 60

select count(*), sum(length(t)), sum(length(v)), sum(length(b)), md5(string_agg(t || v || n || b::text, ',' order by id)) from large
----
60|219600|183000|183000|15b2ce393aff5486f9106ac86da04654
SELECT 1

# Around the length from which rows are compressed.
insert into large (id, t) select i, repeat('x', i) from generate_series(1980, 2050) i
----
INSERT 0 71

insert into large (id, t) values (8000, repeat('seven of 8000 ', 571)), (9000, repeat('long', 20000))
----
INSERT 0 2

select id, length(t), md5(t), left(t, 5), right(t, 5) from large where id > 2045 order by id
----
2046|2046|a77d0af5147801eceda2e059a6ee8eb4|xxxxx|xxxxx
2047|2047|5aa00f0f1280c998648ecae491964f66|xxxxx|xxxxx
2048|2048|cfb767f225d58469c5de3632a8803958|xxxxx|xxxxx
2049|2049|01ee208262ef50b8ea672d0865ad58fa|xxxxx|xxxxx
2050|2050|da23b925b41f6160146ade5dc7f65281|xxxxx|xxxxx
8000|7994|5fee3432206a7d6d4b3b2980d50be8cf|seven|8000 
9000|80000|b08ed155fe2b0b5163d55678e62a8177|longl|glong
SELECT 7

# Text that does not compress, beside some that does.
create table noise (id int primary key, t text, u text)
----
CREATE TABLE

insert into noise select 1, string_agg(chr(40 + (ascii(substr(m, 1, 1)) * 31 + ascii(substr(m, 2, 1)) * 17 + ascii(substr(m, 3, 1)) * 7) % 80), '' order by i), repeat('beside ', 1000) from (select i, md5(i::text) m from generate_series(1, 3000) i) s
----
INSERT 0 1

select id, length(t), md5(t), length(u), md5(u) from noise
----
1|3000|957434890ae8f51d631f415663646d6c|7000|aaa3ce82044ff429273267e12410445d
SELECT 1

update noise set u = upper(u) || t where id = 1 returning length(u), md5(u)
----
10000|df9598a6ea5f14d8c19ec42925860530
UPDATE 1

# Conditions, order, groups.
select id from large where t = repeat('abc', 2000)
----
50
SELECT 1

select id from large where t > repeat('abc', 2280) order by t limit 5
----
58
59
60
9000
8000
SELECT 5

select length(t), count(*) from large where id between 50 and 2000 group by t order by 1 desc limit 3
----
7200|1
7080|1
6960|1
SELECT 3

select id, a[2], length(n::text), n % 1000 from large where id in (1, 30, 60) order by 1
----
1|2|40|234
30|31|1200|234
60|61|2400|234
SELECT 3

prepare by_key (int) as select v, a from large where id = $1
----
PREPARE

execute by_key (21)
----
vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv|{21,22}
SELECT 1

# Updates: of another column, of the long value, taken back, and from long to short.
update large set a = array[0] where id = 55 returning a, length(t), md5(t)
----
{0}|6600|e9832c0c5c5cf33b34555d876d77502c
UPDATE 1

update large set t = t || 'x' where id between 50 and 52 returning id, length(t), md5(t)
----
50|6001|2a2e226b6f94660004d89d98ebba7087
51|6121|7a1f5f20dce1e0757366354ac2687430
52|6241|2b41f8a221fce348b00bd834d864085a
UPDATE 3

begin
----
BEGIN

update large set t = repeat('gone', 1900), v = null where id = 51
----
UPDATE 1

select length(t), md5(t), v is null from large where id = 51
----
7600|6b113e7d2b27139c59c3566bc723b309|t
SELECT 1

rollback
----
ROLLBACK

select length(t), md5(t), v is null from large where id = 51
----
6121|7a1f5f20dce1e0757366354ac2687430|f
SELECT 1

update large set t = 'short', v = 'short' where id = 52 returning t, v, length(n::text)
----
short|short|2080
UPDATE 1

delete from large where id = 60 returning length(t), md5(v)
----
7200|b32449742e9c4042ee25f5b510a02a96
DELETE 1

# Long keys.
create unique index large_t on large (t)
----
CREATE INDEX

select id from large where t = repeat('abc', 1800)
----
45
SELECT 1

select id from large where t >= repeat('abc', 2300) and t < repeat('abc', 2330) order by t
----
58
SELECT 1

insert into large (id, t) values (20000, repeat('abc', 1800))
----
ERROR 23505: duplicate key value violates unique constraint "large_t"

insert into large (id, t) values (20001, repeat('abc', 1800) || 'd')
----
INSERT 0 1

update large set t = repeat('seven of 8000 ', 570) where id = 8000
----
UPDATE 1

select id from large where t like 'seven of%' order by t
----
8000
SELECT 1

update noise set u = null
----
UPDATE 1

create index noise_t on noise (t)
----
ERROR 54000: index row size 3016 exceeds btree version 4 maximum 2704 for index "noise_t"

insert into large (id, t) select 20002, t from noise
----
ERROR 54000: index row size 3016 exceeds btree version 4 maximum 2704 for index "large_t"

select count(*), md5(string_agg(t, ',' order by t)) from large
----
133|222c490405122cbbf497bf3a7e02f536
SELECT 1

drop table large, noise
----
DROP TABLE

